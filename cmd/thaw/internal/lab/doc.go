// Package lab restores one saved machine many times, by several methods, and compares the restores:
// it is what `thaw demo` and `thaw compare` do.
//
// # How a comparison runs
//
// [New] checks the [Options]; [Comparison.Run] does the rest:
//
//  1. The guest is booted and saved, unless a checkpoint is given. Its access bits are scanned before
//     the checkpoint and its accesses are traced after it (guest.go).
//  2. The checkpoint is imported once for each working set that a method needs (compare.go).
//  3. The machine is restored once with all of its memory in the page cache: the warm run, which the
//     delays of the methods are measured against (compare.go).
//  4. Each method restores the machine, each time from a cold page cache, and both the VMM and the
//     server of the memory are asked what they saw (restore.go). A set that comes while the guest runs
//     is counted by its pages and those that the guest touched.
//  5. What they saw becomes a [Result]: tables, a figure, a page, JSON, and a sentence or two
//     (result.go).
//
// All of it happens in a directory of its own with a mount point, the testbed (testbed.go), which is
// removed again unless it is to be kept.
//
// # Processes
//
// The server of a mount never shares a process with anything that uses the mount. So servers and
// machines are processes of their own, and each of them is the program that the lab is part of,
// started again ([Program.Command]). The lab ends what it has started: the machine of a restore
// always before the server that has its memory.
//
// # What a restore is compared with
//
// The methods raw-eager and raw-lazy restore from the plain image, without thaw (package rawfs). The
// server that does so is a hidden command of the program, [RawCommand].
package lab
