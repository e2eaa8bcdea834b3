package index

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

// A segment that cannot be made again, because some of its pages cannot be compared with their hashes, is no
// end of the repair: it stays as it is.
func TestRepairWithoutHashes(t *testing.T) {
	r := rand.New(rand.NewPCG(91, 2))
	base, images := repairStore(t, r)
	dir := filepath.Join(base, "store")
	s := openTest(t, dir, nil)
	segment := pack.Name(s.cat.m["one"].segment, 0)
	number, _, _ := pack.ParseName(ruinedPack)
	p, done, err := s.packs.use(t.Context(), number, 0)
	if err != nil {
		t.Fatal(err)
	}
	slots := p.Slots()
	done()
	s.Close()
	damageSlots(t, dir, func(slot uint32) bool { return int(slot) >= slots-50 }) // in no segment
	changeFile(t, filepath.Join(dir, filepath.FromSlash(ruinedPack)), func(b []byte) []byte {
		for i := range slots - 10 { // so that no page has its hash, and the checksum over them cannot be made right
			b[len(b)-200-i*pack.HashSize] ^= 1
		}
		return b
	})
	changeFile(t, filepath.Join(dir, filepath.FromSlash(segment)), func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	})
	s = openTest(t, dir, nil)
	defer s.Close()
	if rep, err := s.Check(t.Context(), CheckOptions{Repair: true}); err != nil || rep.OK() {
		t.Errorf("%+v, %v", rep, err)
	}
	for name, img := range images {
		m := openImage(t, s, name)
		sameDespite(t, m, img.bytes())
		m.Close()
	}
	m := openImage(t, s, "one")
	defer m.Close()
	if len(m.WorkingSet()) == 0 {
		t.Error("the working set is gone")
	}
}
