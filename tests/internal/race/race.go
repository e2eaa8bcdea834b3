//go:build race

package race

// Enabled is true where the binary was built with the race detector.
const Enabled = true
