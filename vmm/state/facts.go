package state

import (
	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
)

// Facts are what a machine is, apart from its state: the MACHINE section of a state file.
type Facts struct {
	Regions []ram.Region `json:"regions"`
	VCPUs   int          `json:"vcpus"`
	// IRQChip: KVM has the interrupt controllers and the interval timer. Machines whose state is of
	// version 1 have none.
	IRQChip bool       `json:"irqchip,omitempty"`
	Guest   guest.Spec `json:"guest"`
	Disks   []Disk     `json:"disks,omitempty"` // of a kernel
}

// MaxDisks is how many disks a machine can have: one for each free interrupt, less one for random
// numbers.
const MaxDisks = 13

// Disk is a disk of a machine with a kernel.
type Disk struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// devices are the sections of the devices of a machine with a kernel, without data.
func (f Facts) devices() (list []device.Section) {
	if !f.Kernel() {
		return nil
	}
	kinds := deviceParts()
	disk := len(kinds) - 1
	for _, p := range kinds[:disk] {
		list = append(list, device.Section{Tag: p.tag})
	}
	for i := range f.Disks {
		list = append(list, device.Section{Tag: kinds[disk].tag, Index: uint32(i)})
	}
	return list
}

// LinuxGuest is the program of a machine that runs a Linux kernel; its options say what was
// booted.
const LinuxGuest = "linux"

// Kernel says whether the guest is a kernel, not one of the guest programs.
func (f Facts) Kernel() bool { return f.Guest.Program == LinuxGuest }

// maxVCPUs is a limit for what a state file may claim.
const maxVCPUs = 255
