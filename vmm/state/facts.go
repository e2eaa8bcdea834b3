package state

import (
	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
)

// Facts are the properties of a machine that never change: section MACHINE of a state file.
type Facts struct {
	Regions []ram.Region `json:"regions"`
	VCPUs   int          `json:"vcpus"`
	// IRQChip says that the machine has KVM's interrupt controllers and interval timer. Machines from
	// state files of version 1 do not.
	IRQChip bool       `json:"irqchip,omitempty"`
	Guest   guest.Spec `json:"guest"`
	Disks   []Disk     `json:"disks,omitempty"` // of a kernel
}

// MaxDisks is the most disks of a machine: one for each free interrupt, except that of the random
// number device.
const MaxDisks = 13

// Disk is a disk of a machine with a kernel.
type Disk struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// devices lists the sections, without data, of the devices that a machine with a kernel has.
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

// LinuxGuest is the program name of a machine that runs a Linux kernel; its arguments say what was booted.
const LinuxGuest = "linux"

// Kernel says whether the guest is a Linux kernel, not a guest program.
func (f Facts) Kernel() bool { return f.Guest.Program == LinuxGuest }

// maxVCPUs is the most vCPUs that a state file may have.
const maxVCPUs = 255
