// Package nested runs tests of this project on a host that QEMU emulates in software (type Host of
// package qemu): an AMD processor with nested paging, under Debian's kernel. So the tests run with KVM
// on hardware virtualisation, whatever this machine has, and on a kernel without newer features:
// asynchronous write-protection, PAGEMAP_SCAN, cachestat, and resending of requests to a new FUSE
// server.
//
// The test binaries are built here and run there; each of their tests is a subtest here, with its
// output if it fails and with its reason if it is skipped.
//
// # What QEMU's processor does differently
//
// An XSETBV of the guest does not cause an exit (QEMU 7.2), so KVM does not see it and resets XCR0 at
// the next entry. So a Linux guest has no AVX, and gets "noxsave" on its command line. State that is
// set by ioctl is not affected: ring-3 guests have their AVX registers. Time is real time but the CPU
// is slow: within a time limit it executes about a twentieth of the instructions.
package nested
