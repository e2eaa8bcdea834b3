package pack

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/tests/blobtest"
)

// Damage costs the cluster that it is in, or the unit; any of it is noticed.
func TestClusterFlips(t *testing.T) {
	dec := mustDecoder(t)
	m, store, r := coldPack(t, ProfileDefault, 6)
	data := blobtest.Get(t, store, Name(9, 3))
	step := 1
	switch {
	case raceEnabled:
		step = 97
	case testing.Short():
		step = 4
	}
	for off := rand.IntN(step); off < len(data); off += step {
		if off >= headerSize && off < int(r.foot.dir.off) ||
			off >= int(r.foot.hashes.off) && off < len(data)-footerSize {
			off += 60 // the body and the hashes are large: some bytes of them
		}
		if off >= len(data) {
			break
		}
		bad := bytes.Clone(data)
		bad[off] ^= 1 << (off % 8)
		checkNoticed(t, m, bad, off, dec)
	}
	for range 100 {
		if n := rand.IntN(len(data)); len(m.readAll(t, open(t, data[:n]), dec)) == 0 {
			t.Errorf("%d of %d bytes pass for the pack", n, len(data))
		}
	}
}

// A bad sector costs the clusters and units that lie on it, however many are read at once.
func TestClusterBadSectors(t *testing.T) {
	m, store, _ := coldPack(t, ProfileDefault, 6)
	data, dec := blobtest.Get(t, store, Name(9, 3)), mustDecoder(t)
	readBadSectors(t, m, data, dec)
}

// rawClusters writes a generation of a pack that has two clusters of one page.
func rawClusters(t *testing.T, store *blobtest.Mem, generation uint32, slots ...uint32) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	page := make([]byte, PageSize)
	for i := range page {
		page[i] = byte(rng.Uint32())
	}
	w := mustWriter(t, store, 9, generation)
	for _, slot := range slots {
		page[0] = byte(slot)
		if err := w.appendCluster(codecRaw, []uint32{slot}, page); err != nil {
			t.Fatal(err)
		}
	}
	b := EncodedBlock{pages: 2}
	b.add(codecClustered, 2, nil)
	if _, err := w.AppendBlock(&b, make([]Hash, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return blobtest.Get(t, store, Name(9, generation))
}

// A cluster does not pass for another of its size: that beside it, or that which had its number and its place
// in the generation before.
func TestClustersMisplaced(t *testing.T) {
	store := blobtest.NewMem()
	data, before := rawClusters(t, store, 2, 0, 1), rawClusters(t, store, 1, 1, 0)
	const stored = PageSize + crcSize
	swapped, stale := bytes.Clone(data), bytes.Clone(data)
	copy(swapped[headerSize:], data[headerSize+stored:][:stored])
	copy(swapped[headerSize+stored:], data[headerSize:][:stored])
	copy(stale[headerSize:], before[headerSize:][:2*stored])
	for what, data := range map[string][]byte{"exchanged": swapped, "of the generation before": stale} {
		r, err := Open(open(t, data), "test", mustDecoder(t))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for slot := range uint32(2) {
			var damage *CorruptError
			if err := r.ReadPage(slot, make([]byte, PageSize)); !errors.As(err, &damage) {
				t.Errorf("%s: slot %d: %v", what, slot, err)
			}
		}
	}
}

// Pages of a damaged cluster come back from elsewhere, or become dead with a word; those that can be
// read stay.
func TestRewriteRepairsClusters(t *testing.T) {
	for i := range 8 {
		tier := []Tier{TierKeep, TierHot, TierWarm, TierCold}[i%4]
		m, _, r := coldPack(t, ProfileDefault, 20)
		slots := r.ClusterSlots(1)
		off, _ := r.Unit(slots[0])
		r.obj = badSectors{r.obj, [][2]int64{{off, off + 1}}}
		if i >= 4 {
			r.obj = slowObject{r.obj}
		}
		lost := 0
		keep := Keep{
			Page: func(s uint32) []byte {
				if s%2 == 0 {
					return m.pages[s]
				}
				return nil
			},
			Lost: func(error) { lost++ },
			Tier: func(uint32) Tier { return tier },
		}
		store := blobtest.NewMem()
		again := rewriteTiers(t, store, r, mustEncoder(t, ProfileDefault), keep, mustDecoder(t))
		odd := 0
		for _, s := range slots {
			if s%2 == 1 {
				m.pages[s] = nil
				odd++
			}
		}
		if lost != odd {
			t.Errorf("tier %d: %d pages are lost, it said %d", tier, odd, lost)
		}
		m.generation = 4
		m.check(t, again)
		keep.Lost = nil
		w := mustWriter(t, blobtest.NewMem(), 9, 4)
		err := Rewrite(context.Background(), r, w, mustEncoder(t, ProfileDefault), testKey, keep)
		if !IsDamage(err) {
			t.Errorf("tier %d: pages that nobody has: %v", tier, err)
		}
		w.Abort()
	}
}
