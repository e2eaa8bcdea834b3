// Package qemu scans the access bits of a machine that runs under QEMU, from another process. It needs
// only standard features of QEMU: guest memory in a file, and the machine protocol QMP. Neither QEMU
// nor the guest is changed.
//
// # What it needs
//
// The guest's RAM must be a file that is mapped shared, so that this process sees the guest's writes,
// and the guest sees the bits that are cleared here:
//
//	-object memory-backend-file,id=ram,size=4G,mem-path=/dev/shm/ram,share=on
//	-machine ...,memory-backend=ram
//	-qmp unix:/run/vm.qmp,server=on,wait=off
//
// During the scan no other client may use the QMP socket: QEMU serves one client at a time on each.
//
// # How it works
//
// [Guest] implements the guest of package scan. It stops and continues the vCPUs by `stop` and `cont`,
// reads CR3 and other registers by the monitor's `info registers`, and reads by `info mtree` at which
// offsets of the file guest-physical addresses are. A machine has holes below 4 GiB that are not in the
// file. The page numbers of the working set are those in the file, as a restore needs them.
//
// How to make the vCPUs set the bits again depends on the accelerator; the scanner tests it: see
// [Guest.Flushes].
package qemu
