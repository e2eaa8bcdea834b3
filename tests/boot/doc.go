// Package boot tests that kernels boot with the data and tables of vmm/linux and vmm/acpi. They run on
// QEMU's software CPU, because the KVM of some hosts cannot run a kernel completely, and without QEMU's
// own firmware, loader or tables.
//
// QEMU gets guest RAM as a file that [linux.Load] has filled, and a ROM made here: the ACPI tables,
// and a few dozen bytes that put the CPU into the state of the [linux.Entry], loading the segments
// from the table in guest memory. Its machine "microvm" has what thaw's has: local APICs, an I/O
// APIC, a serial port, virtio-mmio, a hole from 3 to 4 GiB; the tables say where. Two devices that
// end QEMU with a status stand in for the sleep control and reset registers.
package boot
