// Package boot sets up the memory and registers of a guest before its first instruction: for a guest
// program, 64-bit mode in ring 3 with page tables made by the VMM (program.go, tables.go); for a Linux
// kernel, the entry of its boot protocol (kernel.go). This file has the map of the guest's physical
// addresses. A restore does not use the package.
package boot

import (
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
)

// The guest's physical address space.
//
//	0x0000_0000  one page that the guest's page tables leave out: a null pointer faults
//	0x0000_7000  boot page                             (guest.BootAddr)
//	0x0000_8000  task state segment                    (program.go)
//	0x0001_0000  program                               (guest.LoadAddr)
//	0x0002_0000  its stack, up to 0x3_0000             (guest.StackTop)
//	0x0010_0000  page tables                           (tables.go)
//	...          pages of the program, to the end of RAM
//	0xc000_0000  hole up to 4 GiB, if there is so much RAM: interrupt controllers, device windows and
//	             four pages that KVM wants for itself lie in it. RAM goes on at 4 GiB.
//
// With a kernel (package linux has the map below 1 MiB, and vmm/hardware.go the rest):
//
//	0x000e_0000  ACPI tables, reserved in the kernel's memory map
//	0x000f_e000  page of the generation ID             (reserved too)
//	0x000f_fff0  code that resets the machine          (acpi.Restart)
//	0xd000_0000  windows of the virtio devices, 4 KiB each
//	0xfec0_0000  I/O APIC, 0xfee0_0000 local APICs
//
// The offset in the image is the physical address, so the image contains the hole, too, as zeros.

// GuestRAM returns the RAM that is left for a guest program after the page tables.
func GuestRAM(regions []ram.Region) guest.RAM {
	ram := guest.RAM{
		First: layOutPageTables(regions).after / pageSize,
		End:   ram.ImageSize(regions) / pageSize,
	}
	if len(regions) > 1 {
		ram.HoleFirst = regions[0].End() / pageSize
		ram.HoleCount = regions[1].GPA/pageSize - ram.HoleFirst
	}
	return ram
}
