// Package race says whether the race detector is on. It makes everything several times slower, so tests
// that take minutes and cannot find races are only run without it.
package race

import "testing"

// SkipSlow skips a test in the run with the race detector.
func SkipSlow(t testing.TB) {
	t.Helper()
	if Enabled {
		t.Skip("takes minutes with the race detector: left to the run without it")
	}
}
