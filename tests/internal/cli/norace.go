//go:build !race

package cli

// raceBuild makes the command under test a race build where the tests are one.
const raceBuild = false
