package index

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// An order is its pages, each at its position, and its parts have their bytes: by the working set in
// the set's own order, by the layout as the groups were given.
func TestOrders(t *testing.T) {
	img := uniqueImage(3000).bytes()
	for gfn := 100; gfn < 140; gfn++ { // as many alike are no neighbours of anything
		copy(img[gfn*PageSize:][:PageSize], img[:PageSize])
	}
	var runs, set []Run
	for i, x := range rand.New(rand.NewPCG(1, 2)).Perm(600) {
		r := Run{GFN: uint64(x) * 5, Count: 1 + uint64(x)%5}
		runs = append(runs, r)
		if i%2 == 0 {
			set = append(set, r)
		}
	}
	s := openTest(t, t.TempDir(), nil)
	_, _, err := s.Import(t.Context(), writeSource(t, img, nil), ImportOptions{
		Name: "a", Order: []Group{{Kind: GroupUsed, Runs: runs}}, WorkingSet: set,
	})
	if err != nil {
		t.Fatal(err)
	}
	m := openImage(t, s, "a")
	orders := m.Orders()
	if len(orders) != 2 {
		t.Fatalf("%d orders", len(orders))
	}
	common := func(gfn uint64) bool { return gfn == 0 || gfn >= 100 && gfn < 140 }
	var want [2][]uint64
	eachPage(set, func(gfn uint64) { want[0] = append(want[0], gfn) })
	eachPage(runs, func(gfn uint64) {
		if !common(gfn) {
			want[1] = append(want[1], gfn)
		}
	})
	for i, o := range orders {
		gfns := o.GFNs(0, o.Len()+10, nil)
		if !slices.Equal(gfns[:len(want[i])], want[i]) {
			t.Errorf("order %d begins with other pages", i)
		}
		in := map[uint64]uint64{}
		for pos, gfn := range gfns {
			in[gfn] = uint64(pos)
		}
		for gfn := range m.Pages() + 10 {
			pos, ok := o.Position(gfn)
			if want, is := in[gfn]; ok != is || ok && pos != want {
				t.Fatalf("order %d: page %d is at %d, %v; want %d, %v", i, gfn, pos, ok, want, is)
			}
		}
		var p Piece
		for pos := uint64(0); pos < o.Len(); {
			end := o.Part(pos, 77)
			if end <= pos || end > o.Len() {
				t.Fatalf("order %d: part [%d,%d) of %d", i, pos, end, o.Len())
			}
			if err := o.Read(t.Context(), pos, end, &p); err != nil {
				t.Fatal(err)
			}
			for j, gfn := range p.GFNs {
				if !bytes.Equal(p.Pages[j*PageSize:][:PageSize], img[gfn*PageSize:][:PageSize]) {
					t.Fatalf("order %d: page %d has other bytes", i, gfn)
				}
			}
			for _, gfn := range o.GFNs(pos, end, nil) {
				if !slices.Contains(p.GFNs, gfn) {
					t.Fatalf("order %d: part [%d,%d) is without page %d", i, pos, end, gfn)
				}
			}
			pos = end
		}
	}
}
