// Package e2e tests thaw from end to end: the built command, real mounts, real guests.
//
// One Linux guest is booted and saved once for all tests that need it (see linux). The other tests use
// synthetic images (package image), which are faster, and of which every page is known.
package e2e
