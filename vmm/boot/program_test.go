package boot

import (
	"testing"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
)

// extent is memory that keeps the end of the highest write.
type extent struct{ end uint64 }

func (e *extent) WriteAt(p []byte, off int64) (int, error) {
	e.end = max(e.end, uint64(off)+uint64(len(p)))
	return len(p), nil
}

// The pages that a program is given begin where its page tables end.
func TestGuestRAM(t *testing.T) {
	for _, bytes := range []uint64{ram.MinMemory, 8<<20 + pageSize, 1 << 30, 5 << 30} {
		regions, err := ram.Layout(bytes)
		if err != nil {
			t.Fatal(err)
		}
		var mem extent
		root, err := WriteProgram(&mem, regions, guest.Boot{}, make([]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		got := GuestRAM(regions)
		if got.First*pageSize != mem.end || root != guest.Reserved ||
			got.End*pageSize != ram.ImageSize(regions) {
			t.Errorf("%#x bytes of RAM: %+v, the tables are from %#x to %#x", bytes, got, root, mem.end)
		}
		if hole := got.HoleCount * pageSize; hole != ram.ImageSize(regions)-bytes {
			t.Errorf("%#x bytes of RAM: a hole of %#x bytes", bytes, hole)
		}
	}
}
