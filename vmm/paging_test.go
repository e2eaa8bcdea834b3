package vmm

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/wss/pagetable"
)

func TestPaging(t *testing.T) {
	const below, above = 3 << 30, 4 << 30 // where the hole begins and ends
	regions := []Region{{0, below}, {above, 1 << 30}}
	at := []pagetable.Region{{GPA: 0, Bytes: below, Offset: 0},
		{GPA: above, Bytes: 1 << 30, Offset: above}}
	cpu := func(cr3, cr4 uint64) kvm.Sregs {
		return kvm.Sregs{CR0: kvm.CR0PG | kvm.CR0PE, CR3: cr3, CR4: kvm.CR4PAE | cr4, EFER: kvm.EFERLMA}
	}
	program, kernel := "idle", kernelGuest
	for name, c := range map[string]struct {
		guest string
		cpus  []kvm.Sregs
		found addressSpaces
		want  *pagetable.Info
	}{
		"program": {program, []kvm.Sregs{cpu(0x100000, 0), cpu(0x100000, 0)}, addressSpaces{},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x100000}, Complete: true, Regions: at}},
		// Bit 63 asks not to flush, the low 12 are the PCID; one vCPU was not started yet.
		"kernel": {kernel, []kvm.Sregs{cpu(1<<63|0x7fff_f805, 0), {}, cpu(0x12003, 0)},
			addressSpaces{},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x12000, 0x7fff_f000}, Regions: at}},
		"five levels": {kernel, []kvm.Sregs{cpu(0x5000, kvm.CR4LA57)}, addressSpaces{},
			&pagetable.Info{Levels: 5, Roots: []uint64{0x5000}, Regions: at}},
		"of two kinds": {program, []kvm.Sregs{cpu(0x5000, kvm.CR4LA57), cpu(0x6000, 0)},
			addressSpaces{}, &pagetable.Info{Levels: 5, Roots: []uint64{0x5000}, Regions: at}},
		"scanned in part": {kernel, []kvm.Sregs{cpu(0x5000, 0)}, addressSpaces{[]uint64{4, 5}, false},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x4000, 0x5000}, Regions: at}},
		"scanned": {kernel, []kvm.Sregs{cpu(0x5000, 0)}, addressSpaces{[]uint64{4}, true},
			&pagetable.Info{Levels: 4, Roots: []uint64{0x4000, 0x5000}, Complete: true, Regions: at}},
		"no paging":     {kernel, []kvm.Sregs{{CR0: kvm.CR0PE, CR3: 0x5000}}, addressSpaces{}, nil},
		"32-bit paging": {kernel, []kvm.Sregs{{CR0: kvm.CR0PG, CR3: 0x5000}}, addressSpaces{}, nil},
	} {
		s := saved{facts: facts{Regions: regions}}
		s.facts.Guest.Program = c.guest
		for _, sregs := range c.cpus {
			s.vcpus = append(s.vcpus, vcpuState{Sregs: sregs})
		}
		if d := cmp.Diff(c.want, s.paging(c.found)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
