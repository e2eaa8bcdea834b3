package state

import (
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/wss/pagetable"
)

// AddressSpaces are those that a scan of access bits found, by the frames of their uppermost tables.
type AddressSpaces struct {
	Roots    []uint64
	Complete bool // the scan went through all of memory to find them
}

// Paging says where the guest's page tables are, for whoever lays out the image by them: those that
// vCPUs use, and those that a scan found. Nil: no vCPU is in 64-bit mode.
//
// There are others unless the guest is a program, which has one address space, or the scan has
// looked everywhere.
func (s *Machine) Paging(found AddressSpaces) *pagetable.Info {
	i := &pagetable.Info{Complete: !s.Facts.Kernel() || found.Complete}
	for _, c := range s.VCPUs {
		mode, root, ok := LongMode(c.Sregs)
		switch {
		case !ok:
		case i.Levels != 0 && i.Levels != mode.Levels:
			i.Complete = false // tables of two kinds are more than info.json can say
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

// LongMode says how a vCPU reads its page tables, and the frame of the uppermost one; false: it is not
// in 64-bit mode with paging.
func LongMode(s kvm.Sregs) (mode pagetable.Mode, root uint64, ok bool) {
	return pagetable.ModeOf(s.CR0, s.CR3, s.CR4, s.EFER)
}
