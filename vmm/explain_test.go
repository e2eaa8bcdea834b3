package vmm

import (
	"testing"

	"github.com/thawfs/thaw/vmm/boot"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
)

func TestPageTables(t *testing.T) {
	for _, regions := range [][]ram.Region{
		{{GPA: 0, Size: ram.MinMemory}},
		{{GPA: 0, Size: 8<<20 + pageSize}},
		{{GPA: 0, Size: 24 << 20}, {GPA: 1 << 32, Size: 8 << 20}},
	} {
		m, err := ram.New(ram.ImageSize(regions))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		root, err := boot.WriteProgram(m, regions, guest.Boot{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sregs := kvm.Sregs{CR0: kvm.CR0PG, CR3: root, EFER: kvm.EFERLMA}
		end := ram.ImageSize(regions)
		for _, addr := range []uint64{pageSize, 0x10000, 2<<20 - 1, 2 << 20, end - 1} {
			if err := readVirtual(m, sregs, addr); err != nil {
				t.Errorf("%#x of %+v: %v", addr, regions, err)
			}
		}
		for _, addr := range []uint64{0, 0xfff, end, 3 << 30, 1 << 47} {
			if readVirtual(m, sregs, addr) == nil {
				t.Errorf("%#x of %+v is mapped", addr, regions)
			}
		}
	}
}
