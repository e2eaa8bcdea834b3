//go:build race

package index

// raceEnabled: the race detector is on. It makes everything slow, and sync.Pool forgetful.
const raceEnabled = true
