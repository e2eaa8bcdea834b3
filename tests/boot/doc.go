// Package boot tests that kernels start with what vmm/linux and vmm/acpi write, on hosts whose KVM
// cannot run one to the end: under QEMU's software CPU, without any of QEMU's own firmware, loader
// or tables.
//
// QEMU gets guest RAM as a file that [linux.Load] has filled, and a ROM made here: the ACPI tables,
// and a few dozen bytes that put the CPU into the state of the [linux.Entry], loading the segments
// from the table in guest memory. Its machine "microvm" has what thaw's has: local APICs, an I/O
// APIC, a serial port, virtio-mmio, a hole from 3 to 4 GiB; the tables say where. Two devices that
// end QEMU with a status stand in for the sleep control and reset registers.
package boot
