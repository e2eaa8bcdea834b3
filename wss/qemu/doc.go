// Package qemu lets the access bits of a machine that runs under QEMU be scanned from outside, by
// nothing but what QEMU offers to everybody: guest memory in a file, and its machine protocol, QMP.
// QEMU is not changed, nor is the guest.
//
// # What it needs
//
// The guest's RAM must be a file that is mapped shared, so that this process sees what the guest
// writes and QEMU sees which bits are cleared here:
//
//	-object memory-backend-file,id=ram,size=4G,mem-path=/dev/shm/ram,share=on
//	-machine ...,memory-backend=ram
//	-qmp unix:/run/vm.qmp,server=on,wait=off
//
// and a QMP socket that nobody else uses meanwhile: QEMU serves one client at a time on each.
//
// # How it works
//
// [Guest] is the machine for package scan. It stops and continues the vCPUs by `stop` and `cont`,
// reads CR3 and the other registers by the monitor's `info registers`, and learns by `info mtree`
// which guest-physical addresses lie where in the file: a machine has holes below 4 GiB that the
// file leaves out, so pages of the working set are counted in the file, as a restore needs them.
//
// What makes the vCPUs set the bits again depends on the accelerator, and the scanner finds out: see
// [Guest.Flushes].
package qemu
