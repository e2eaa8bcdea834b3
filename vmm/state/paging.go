package state

import (
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/wss/pagetable"
)

// AddressSpaces are the address spaces that a scan of access bits found, by the frames of their
// uppermost tables.
type AddressSpaces struct {
	Roots    []uint64
	Complete bool // the scan searched all of memory
}

// Paging returns where the guest's page tables are: those that vCPUs use, and those that a scan found.
// It is nil if no vCPU is in 64-bit mode.
//
// The list is complete if the guest is a guest program, which has one address space, or if the scan
// searched all of memory.
func (s *Machine) Paging(found AddressSpaces) *pagetable.Info {
	i := &pagetable.Info{Complete: !s.Facts.Kernel() || found.Complete}
	for _, c := range s.VCPUs {
		mode, root, ok := LongMode(c.Sregs)
		switch {
		case !ok:
		case i.Levels != 0 && i.Levels != mode.Levels:
			i.Complete = false // info.json has only one number of levels
		default:
			i.Levels = mode.Levels
			i.Roots = append(i.Roots, root*pageSize)
		}
	}
	if len(i.Roots) == 0 {
		return nil
	}
	for _, frame := range found.Roots {
		i.Roots = append(i.Roots, frame*pageSize)
	}
	slices.Sort(i.Roots)
	i.Roots = slices.Compact(i.Roots)
	for _, r := range s.Facts.Regions {
		i.Regions = append(i.Regions, pagetable.Region{GPA: r.GPA, Bytes: r.Size, Offset: r.GPA})
	}
	return i
}

// LongMode returns how a vCPU reads its page tables, and the frame of the uppermost one. ok is false if
// it is not in 64-bit mode with paging.
func LongMode(s kvm.Sregs) (mode pagetable.Mode, root uint64, ok bool) {
	return pagetable.ModeOf(s.CR0, s.CR3, s.CR4, s.EFER)
}
