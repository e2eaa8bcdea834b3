// Package doctor finds out what this host can do for thaw, by trying: it opens the devices, asks
// the kernel for its features, mounts an empty file system for a moment, runs a guest of three
// instructions. It changes nothing that stays. Nothing is concluded from the version of the kernel,
// which distributions change at will; for what is missing it says what thaw does without.
package doctor
