package index

import (
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

// A hintTable finds what was added to it, the last of equal ones, and next to nothing else.
func TestHintTable(t *testing.T) {
	r := newRand(t)
	hash := func() (h pack.Hash) {
		for i := range h {
			h[i] = byte(r.Uint32())
		}
		return h
	}
	for _, pages := range []int{0, 1, 7, 1000, 100000} {
		table := newHintTable(pages)
		if table.room() < pages {
			t.Fatalf("room for %d pages, want %d", table.room(), pages)
		}
		want := map[pack.Hash]pack.Ref{}
		var all []pack.Hash
		slot := uint32(0)
		for i := range pages {
			if i == 0 || r.IntN(1+pages/maxHintPacks) == 0 && len(table.packs) < maxHintPacks {
				table.packs = append(table.packs, 1+r.Uint64N(pack.MaxNumber))
				slot = r.Uint32N(1 << 23)
			}
			h := hash()
			if len(all) > 0 && r.IntN(10) == 0 {
				h = all[r.IntN(len(all))]
			}
			all = append(all, h)
			want[h] = pack.MakeRef(table.packs[len(table.packs)-1], slot)
			table.add(h, slot)
			slot++
		}
		if table.count != len(want) {
			t.Errorf("%d pages, want %d", table.count, len(want))
		}
		for h, ref := range want {
			if got := table.ref(h); got != uint64(ref) {
				t.Fatalf("%x: %x, want %x", h, got, ref)
			}
		}
		wrong := 0
		for range 1000 {
			if table.ref(hash()) != 0 {
				wrong++
			}
		}
		if wrong > 2 {
			t.Errorf("%d of 1000 strangers were found", wrong)
		}
	}
}

// A table that is too small, or the last slot of the last pack, are no trouble.
func TestHintTableIsFull(t *testing.T) {
	table := newHintTable(0)
	for range maxHintPacks {
		table.packs = append(table.packs, pack.MaxNumber)
	}
	r := rand.New(rand.NewPCG(121, 1))
	found := 0
	for range 100 {
		var h pack.Hash
		for i := range h {
			h[i] = byte(r.Uint32())
		}
		table.add(h, pack.MaxSlots-1)
		switch ref := table.ref(h); ref {
		case uint64(pack.MakeRef(pack.MaxNumber, pack.MaxSlots-1)):
			found++
		case 0:
		default:
			t.Fatalf("%x", ref)
		}
	}
	if found == 0 || found != table.count {
		t.Errorf("%d found, %d in the table", found, table.count)
	}
}
