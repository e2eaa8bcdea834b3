// Package race says whether the race detector is on, which makes everything several times slower:
// tests that find no races but take minutes then are left to the run without it.
package race

import "testing"

// SkipSlow skips a test in the run with the race detector.
func SkipSlow(t testing.TB) {
	t.Helper()
	if Enabled {
		t.Skip("takes minutes with the race detector: left to the run without it")
	}
}
