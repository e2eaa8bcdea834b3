package vmm

import (
	"fmt"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/wss"
)

const pageSize = wss.PageSize

// The guest's physical address space.
//
//	0x0000_0000  one page that the guest's page tables leave out: a null pointer faults
//	0x0000_7000  boot page                             (guest.BootAddr)
//	0x0000_8000  task state segment                    (boot.go)
//	0x0001_0000  program                               (guest.LoadAddr)
//	0x0002_0000  its stack, up to 0x3_0000             (guest.StackTop)
//	0x0010_0000  page tables                           (pagetables.go)
//	...          pages of the program, to the end of RAM
//	0xc000_0000  hole up to 4 GiB, if there is so much RAM: interrupt controllers, device windows and
//	             four pages that KVM wants for itself lie in it. RAM goes on at 4 GiB.
//
// With a kernel (package linux has what is below 1 MiB then, and hardware.go the rest):
//
//	0x000e_0000  ACPI tables, reserved in the kernel's memory map
//	0x000f_e000  page of the generation ID             (reserved too)
//	0x000f_fff0  code that resets the machine          (acpi.Restart)
//	0xd000_0000  windows of the virtio devices, 4 KiB each
//	0xfec0_0000  I/O APIC, 0xfee0_0000 local APICs
//
// The offset in the image is the physical address, so the hole is in the image too, as zeros.
const (
	holeStart = 0xc000_0000
	holeEnd   = 0x1_0000_0000

	tssAddr         = 0xfffb_d000 // three pages
	identityMapAddr = 0xfffb_c000

	// MinMemory is the least RAM of a machine, in bytes.
	MinMemory = 8 << 20
	// MaxMemory is the most: the page tables for it still fit below the hole.
	MaxMemory = 1 << 40
)

// Region is a piece of guest physical memory that is RAM.
type Region struct {
	GPA  uint64 `json:"gpa"`  // guest physical address, and offset in the image
	Size uint64 `json:"size"` // bytes
}

// End is the first address after the region.
func (r Region) End() uint64 { return r.GPA + r.Size }

// ramRegions lays out so many bytes of RAM.
func ramRegions(bytes uint64) ([]Region, error) {
	if bytes < MinMemory || bytes > MaxMemory || bytes%pageSize != 0 {
		return nil, fmt.Errorf("memory of %d bytes: it must be a multiple of %d from %d to %d", bytes,
			pageSize, uint64(MinMemory), uint64(MaxMemory))
	}
	if bytes <= holeStart {
		return []Region{{0, bytes}}, nil
	}
	return []Region{{0, holeStart}, {holeEnd, bytes - holeStart}}, nil
}

// imageSize is the size of the memory file for these regions.
func imageSize(regions []Region) uint64 { return regions[len(regions)-1].End() }

// ramBytes is how much of the image is RAM.
func ramBytes(regions []Region) (n uint64) {
	for _, r := range regions {
		n += r.Size
	}
	return n
}

// inRAM says whether an address is RAM.
func inRAM(regions []Region, gpa uint64) bool {
	for _, r := range regions {
		if gpa >= r.GPA && gpa-r.GPA < r.Size {
			return true
		}
	}
	return false
}

// checkRegions verifies regions that come out of a file: the only layouts are those of ramRegions.
func checkRegions(regions []Region) error {
	var total uint64
	for _, r := range regions {
		total += min(r.Size, MaxMemory)
	}
	want, err := ramRegions(total)
	if err != nil {
		return err
	}
	if len(want) != len(regions) {
		return fmt.Errorf("%d regions of RAM, expected %d", len(regions), len(want))
	}
	for i, r := range regions {
		if r != want[i] {
			return fmt.Errorf("region of %#x bytes at %#x, expected %#x at %#x", r.Size, r.GPA,
				want[i].Size, want[i].GPA)
		}
	}
	return nil
}

// guestRAM is what is left for a guest program after the page tables.
func guestRAM(regions []Region) guest.RAM {
	ram := guest.RAM{
		First: (pageTableBase + pageTableBytes(regions)) / pageSize,
		End:   imageSize(regions) / pageSize,
	}
	if len(regions) > 1 {
		ram.HoleFirst = regions[0].End() / pageSize
		ram.HoleCount = regions[1].GPA/pageSize - ram.HoleFirst
	}
	return ram
}
