//go:build race

package uffd

// raceEnabled: the race detector is on. It makes caches of the runtime forgetful.
const raceEnabled = true
