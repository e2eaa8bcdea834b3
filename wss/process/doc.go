// Package process scans the access bits of a machine of any VMM, from another process, by nothing but
// the process ID of the VMM. It needs no control socket and no change of the VMM.
//
// # What it needs
//
// The guest's RAM must be one file that the VMM maps shared: a memfd, or a file of a tmpfs, a hugetlbfs,
// or a disk. (QEMU: memory-backend-memfd or memory-backend-file with share=on. Cloud Hypervisor:
// shared=on.) Memory that is mapped private is not seen by others, and cannot be scanned. The guest must
// be a 64-bit Linux, or another kernel that maps all of its memory and gives all of its address spaces
// the same upper half.
//
// This process must be allowed to trace the VMM (ptrace): the same user with
// /proc/sys/kernel/yama/ptrace_scope 0, or root. A VMM that a debugger traces cannot be scanned.
//
// # How it works
//
// [Open] finds the file among the mappings of the process, and where the guest's address space has its
// hole below 4 GiB. [Guest] implements the guest of package scan, for a scan without registers
// (scan.TableOptions.Unseen): the page tables are found in the memory.
//
// Bits are read and cleared while all threads of the VMM are stopped. They are stopped as a debugger does
// it, which neither the VMM nor its parent notices, and which ends by itself if this process is killed.
// Between the sweeps nothing is attached to the VMM.
//
// # Where RAM is
//
// A machine with more than 2 GiB has a hole below 4 GiB, whose place depends on the VMM. The file says
// nothing about it, but the guest does: Linux maps all RAM that it knows at one distance. Of the usual
// places of the hole the one that agrees with this map is taken. If none does, the caller has to say how
// much RAM is below 4 GiB (Options.Below4G).
//
// # Flushes
//
// A software CPU (QEMU's tcg) drops its translations when the guest switches between address spaces. KVM
// drops them when the mappings of the VMM change. Writing 4 to /proc/PID/clear_refs says to KVM that all
// of them do. (It is meant for tracing which pages are written, and resets such a trace of the VMM.)
package process
