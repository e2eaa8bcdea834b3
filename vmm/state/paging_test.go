package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/wss/pagetable"
)

const la57 = 1 << 12 // of CR4: page tables of five levels

func TestPaging(t *testing.T) {
	const below, above = 3 << 30, 4 << 30 // where the hole begins and ends
	regions := []ram.Region{{GPA: 0, Size: below}, {GPA: above, Size: 1 << 30}}
	at := []pagetable.Region{{GPA: 0, Bytes: below, Offset: 0},
		{GPA: above, Bytes: 1 << 30, Offset: above}}
	cpu := func(cr3, cr4 uint64) kvm.Sregs {
		return kvm.Sregs{CR0: kvm.CR0PG | kvm.CR0PE, CR3: cr3, CR4: kvm.CR4PAE | cr4, EFER: kvm.EFERLMA}
	}
	program, kernel := "idle", LinuxGuest
	for name, c := range map[string]struct {
		guest string
		cpus  []kvm.Sregs
		found AddressSpaces
		want  *pagetable.Info
	}{
		"program": {program, []kvm.Sregs{cpu(0x100000, 0), cpu(0x100000, 0)}, AddressSpaces{},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x100000}, Complete: true, Regions: at}},
		// Bit 63 asks not to flush, the low 12 are the PCID; one vCPU was not started yet.
		"kernel": {kernel, []kvm.Sregs{cpu(1<<63|0x7fff_f805, 0), {}, cpu(0x12003, 0)},
			AddressSpaces{},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x12000, 0x7fff_f000}, Regions: at}},
		"five levels": {kernel, []kvm.Sregs{cpu(0x5000, la57)}, AddressSpaces{},
			&pagetable.Info{Levels: 5, Roots: []uint64{0x5000}, Regions: at}},
		"of two kinds": {program, []kvm.Sregs{cpu(0x5000, la57), cpu(0x6000, 0)},
			AddressSpaces{}, &pagetable.Info{Levels: 5, Roots: []uint64{0x5000}, Regions: at}},
		"scanned in part": {kernel, []kvm.Sregs{cpu(0x5000, 0)}, AddressSpaces{[]uint64{4, 5}, false},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x4000, 0x5000}, Regions: at}},
		"scanned": {kernel, []kvm.Sregs{cpu(0x5000, 0)}, AddressSpaces{[]uint64{4}, true},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x4000, 0x5000}, Complete: true, Regions: at}},
		"no paging":     {kernel, []kvm.Sregs{{CR0: kvm.CR0PE, CR3: 0x5000}}, AddressSpaces{}, nil},
		"32-bit paging": {kernel, []kvm.Sregs{{CR0: kvm.CR0PG, CR3: 0x5000}}, AddressSpaces{}, nil},
	} {
		s := Machine{Facts: Facts{Regions: regions}}
		s.Facts.Guest.Program = c.guest
		for _, sregs := range c.cpus {
			s.VCPUs = append(s.VCPUs, VCPU{Sregs: sregs})
		}
		if d := cmp.Diff(c.want, s.Paging(c.found)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
