// Package doctor finds out what this host can do for thaw, by trying: it opens the devices, asks the
// kernel for its features, mounts an empty file system for a moment, runs a guest of three
// instructions. It changes nothing permanently. It concludes nothing from the version of the kernel,
// because distributions backport features. For each missing feature it says what thaw does without it.
package doctor
