// Package qemu runs a real Linux under QEMU for the tests: it boots Debian's kernel with an initramfs
// made here, runs a workload that fills memory with files and data structures and checks their contents
// all the time, saves the machine by migration, and restores it from any file that has its memory.
//
// # The machine
//
// QEMU with its software CPU (-accel tcg), so that nothing but user space is needed, one vCPU, a
// serial console on the process' own stdin and stdout, and QMP over an inherited socket. Guest
// RAM is a memory-backend-file: while the machine runs for the first time, a file of its own
// mapped shared; after a restore, whatever file is given, mapped private.
//
//	Boot ──► Guest ──► Save(dir)  = dir/memory (the RAM, sparse) + dir/state (migration stream)
//	Restore(memory file, state) ──► Guest
//
// The capability x-ignore-shared keeps RAM out of the migration stream, so `state` has a few
// hundred KiB and `memory` is the plain file that package fs serves.
//
// # The workload
//
// The initramfs holds busybox, a script as init and a payload of files of this host (libraries,
// kernel modules, text), each with its SHA-1. In the guest:
//
//   - one awk process builds an associative array and sums it up over and over: heap pages;
//   - the init script checks the hashes of a small hot part of the payload in every round,
//     replaces some generated files, and prints one line:
//     `tick n=N uptime=SECONDS bad=N` — its progress, the guest's clock, and how many checks
//     have failed so far;
//   - a line `all` sent to the console makes it check every file once: `all bad=N files=N`.
//
// A page with wrong bytes in that data shows as bad > 0, or the guest stops working. Guest's waiting
// methods report both.
package qemu
