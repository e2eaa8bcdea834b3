package index

import (
	"math/rand/v2"
	"testing"
)

// sameExtents walks a page map by its extents and compares them with the pages that are not zero.
func sameExtents(t testing.TB, m *pageMap, refs map[uint64]uint64) {
	t.Helper()
	before := uint64(0)
	for gfn := uint64(0); gfn < m.pages; {
		_, data := refs[gfn]
		end := gfn + 1
		for end < m.pages {
			if _, next := refs[end]; next != data {
				break
			}
			end++
		}
		from := gfn + rand.Uint64N(end-gfn)
		for _, at := range []uint64{gfn, from, end - 1} {
			if got := m.next(at, data); got != at {
				t.Fatalf("page %d is such a page itself, not %d (data: %v)", at, got, data)
			}
			if got := m.next(at, !data); got != end {
				t.Fatalf("from page %d on: %d, want %d (data: %v)", at, got, end, !data)
			}
		}
		inside := uint64(0)
		if data {
			inside = from - gfn
		}
		if got := m.dataBefore(from); got != before+inside {
			t.Fatalf("%d pages before page %d, want %d", got, from, before+inside)
		}
		if data {
			before += end - gfn
		}
		gfn = end
	}
	for _, beyond := range []uint64{m.pages, m.pages + 1, 1 << 60} {
		if n := m.dataBefore(beyond); n != before {
			t.Fatalf("%d pages before the end, want %d", n, before)
		}
		if d, z := m.next(beyond, true), m.next(beyond, false); d != m.pages || z != m.pages {
			t.Fatalf("beyond the end: %d, %d, want %d", d, z, m.pages)
		}
	}
}

// The hole of an empty image of 16 TiB is one extent, found without looking at its pages.
func TestExtentsOfHugeHole(t *testing.T) {
	const pages = 1 << 32
	m := &pageMap{pages: pages, branches: make([]*branchMap, pages/branchPages),
		before: make([]uint64, pages/branchPages)}
	last := &branchMap{leaves: []leafMap{{bits: [8]uint64{7: 1 << 63}}}, places: []uint64{0}}
	last.index[branchLeaves-1] = 1
	m.branches[len(m.branches)-1], m.data = last, 1
	if got := m.next(0, true); got != pages-1 {
		t.Errorf("the first page that is not zero is %d, want %d", got, pages-1)
	}
	if got := m.next(pages-1, false); got != pages {
		t.Errorf("the end is at %d, want %d", got, pages)
	}
	if n := testing.AllocsPerRun(10, func() { m.next(0, true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
