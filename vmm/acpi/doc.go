// Package acpi makes the tables by which a guest finds its CPUs, its interrupt controllers and its
// devices, and learns how to switch itself off. It computes bytes; package vmm puts them into
// guest memory, and package device has the registers that they speak of.
//
// # Hardware-reduced ACPI
//
// ACPI asks for a block of fixed hardware: power management event and control registers, a timer,
// a system control interrupt. The hardware-reduced profile (ACPI 6.5, 4.1) does without them. What
// is left are three registers of a byte each, in I/O space:
//
//	sleep control   guest writes [PowerOff]: the machine is switched off
//	sleep status    guest reads it after it went to sleep; it never wakes up, so it reads 0
//	reset           guest writes [ResetValue]: the machine is reset; see also [Restart]
//
// Linux takes the flag as word for a machine without the PC's legacy timers and interrupt
// controllers: it neither looks for an 8259 nor uses the PIT, even where KVM has both. It keeps
// time by kvmclock and its local APIC's TSC deadline timer, so the vCPU's CPUID must offer both
// (leaf 1, ECX bit 24, which KVM_GET_SUPPORTED_CPUID leaves to the VMM). Without them it does not
// find out how fast its clocks are, and stops early.
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
// Linux starts its other CPUs from the MADT. virtio-mmio devices are found in the DSDT alone, no
// option on the command line; so is the interrupt of COM1, without which the console prints but
// hears nothing. The generation id is for restored machines: a guest that has seen the event mixes
// the new id into its random numbers, so that two machines from one checkpoint part. The event is
// edge-triggered: nobody has to acknowledge it, and it needs no register.
//
// Processor objects, power states, a PCI root and tables about NUMA are left out; the machine has
// none of these. The PIT's interrupt source override is right only if interrupt 0 is wired so:
// KVM's own routing has no such override, see [Config].
//
// Sources: ACPI Specification 6.5: 4.1 (hardware-reduced), 4.8.4.6, 4.8.4.7 (reset, sleep), 5.2.5
// to 5.2.12 (RSDP, XSDT, FADT, MADT), 5.6.9 (GED), 6.4 (resource descriptors), 7.4.2 (_S5), 20
// (AML); Microsoft, Virtual Machine Generation ID; Linux: drivers/virtio/virtio_mmio.c,
// drivers/virt/vmgenid.c, arch/x86/kernel/acpi/boot.c.
package acpi
