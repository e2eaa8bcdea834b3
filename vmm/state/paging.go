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
		root, levels, ok := LongMode(c.Sregs)
		switch {
		case !ok:
		case i.Levels != 0 && i.Levels != levels:
			i.Complete = false // tables of two kinds are more than info.json can say
		default:
			i.Levels = levels
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

// LongMode gives the frame of the uppermost page table of a vCPU, and its levels; false: it is not
// in 64-bit mode with paging. CR3 has flags and a number of the address space below the address.
func LongMode(s kvm.Sregs) (root uint64, levels int, ok bool) {
	if s.CR0&kvm.CR0PG == 0 || s.EFER&kvm.EFERLMA == 0 {
		return 0, 0, false
	}
	const address = 0x000f_ffff_ffff_f000
	levels = 4
	if s.CR4&kvm.CR4LA57 != 0 {
		levels = 5
	}
	return s.CR3 & address / pageSize, levels, true
}
