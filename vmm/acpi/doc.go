// Package acpi makes the ACPI tables by which a guest finds its CPUs, interrupt controllers and
// devices, and the registers to switch itself off. It only computes bytes; package vmm writes them into
// guest memory, and package device has the registers.
//
// # Hardware-reduced ACPI
//
// ACPI requires a block of fixed hardware: power management event and control registers, a timer, a
// system control interrupt. The hardware-reduced profile (ACPI 6.5, 4.1) does not need them. Only three
// registers of one byte each remain, in I/O space:
//
//	sleep control   guest writes [PowerOff]: the machine is switched off
//	sleep status    guest reads it after it went to sleep; it never wakes up, so it reads 0
//	reset           guest writes [ResetValue]: the machine is reset; see also [Restart]
//
// With this profile Linux assumes a machine without the PC's legacy timers and interrupt controllers:
// it neither looks for an 8259 nor uses the PIT, although KVM has both. It keeps time by kvmclock and
// by the TSC deadline timer of its local APIC, so the vCPU's CPUID must offer both (leaf 1, ECX bit 24,
// which KVM_GET_SUPPORTED_CPUID leaves to the VMM). Without them it cannot calibrate its clocks and
// stops early.
//
// # The tables
//
//	RSDP   at the start of the region          the root; the zero page of package linux points here
//	 └ XSDT
//	    ├ FADT "FACP"                          the profile, the three registers, what a PC has and
//	    │  │                                   this machine has not
//	    │  └ DSDT                              devices, in AML
//	    └ MADT "APIC"                          a local APIC for each CPU, the I/O APIC, where the
//	                                           PIT's interrupt comes in
//
// The DSDT, as one would write it in ASL:
//
//	Name (_S5, Package () { 5, 0, 0, 0 })        the value for the sleep control register
//	Scope (_SB) {
//	  Device (COM1) {PNP0501}                    serial console: ports, edge-triggered interrupt
//	  Device (PS2K) {PNP0303}                    keyboard controller: ports, edge-triggered interrupt
//	  Device (Vnnn) {LNRO0005}                   virtio-mmio: registers, level-triggered interrupt
//	  Device (VGEN) {VM_Gen_Counter}             address of the generation id
//	  Device (GED)  {ACPI0013}                   interrupt, which means: the generation id is another
//	}
//
// # What needs which table
//
// Linux finds its other CPUs in the MADT. It finds virtio-mmio devices only in the DSDT, without an
// option on the command line. It also finds the interrupt of COM1 there, without which the console
// prints but gets no input. The generation ID is for restored machines: when the guest gets the event
// it mixes the new ID into its random numbers, so that two machines from one checkpoint differ. The
// event is edge-triggered, so it needs no acknowledgement and no register.
//
// The machine has no processor objects, power states, PCI root or NUMA tables. The PIT's interrupt
// source override must match KVM's routing of interrupt 0, see [Config].
//
// Sources: ACPI Specification 6.5: 4.1 (hardware-reduced), 4.8.4.6, 4.8.4.7 (reset, sleep), 5.2.5
// to 5.2.12 (RSDP, XSDT, FADT, MADT), 5.6.9 (GED), 6.4 (resource descriptors), 7.4.2 (_S5), 20
// (AML); Microsoft, Virtual Machine Generation ID; Linux: drivers/virtio/virtio_mmio.c,
// drivers/virt/vmgenid.c, arch/x86/kernel/acpi/boot.c.
package acpi
