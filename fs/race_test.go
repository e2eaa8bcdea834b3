//go:build race

package fs

// raceEnabled: the race detector is on. It makes everything slow, and sync.Pool forgetful.
const raceEnabled = true
