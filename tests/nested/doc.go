// Package nested runs tests of this project on another host: one whose KVM is that of an AMD
// processor, with nested paging, under Debian's kernel, all of it made by QEMU in software (package
// qemu's Host). So they run as on a machine with hardware virtualisation, whatever this one has, and
// as on one that lacks what newer kernels have: asynchronous write-protection, PAGEMAP_SCAN,
// cachestat, requests that outlive their server.
//
// The test binaries are built here and run there; each of their tests is a subtest here, with its
// output if it fails and with its reason if it is skipped.
//
// # What QEMU's processor does differently
//
// An XSETBV of the guest does not leave it (QEMU 7.2), so KVM does not know of it and takes it back
// at the next entry: a Linux guest has no AVX, and gets "noxsave" on its command line so that it does
// not wonder. State that is set by ioctl is not affected: ring-3 guests have their AVX registers.
// Time is the host's, so whatever waits for an answer within so many seconds has fewer instructions
// in them: about a twentieth.
package nested
