package rawfs

import (
	"sort"

	"github.com/thawfs/thaw/index"
)

// places says where the data of a sparse file lies on a disk: one extent behind another, without
// the holes.
type places []place

// place is Count pages from GFN on, with before pages of data before them.
type place struct {
	index.Run
	before uint64
}

func placesOf(extents []index.Run) places {
	p := make(places, len(extents))
	n := uint64(0)
	for i, r := range extents {
		p[i] = place{r, n}
		n += r.Count
	}
	return p
}

// before is how many pages of data lie before a page.
func (p places) before(gfn uint64) uint64 {
	i := sort.Search(len(p), func(i int) bool { return p[i].GFN > gfn }) - 1
	if i < 0 {
		return 0
	}
	return p[i].before + min(gfn-p[i].GFN, p[i].Count)
}

// hole says whether a page lies in none of the extents.
func (p places) hole(gfn uint64) bool { return p.before(gfn) == p.before(gfn+1) }

// from is the first extent that does not end before a page.
func (p places) from(gfn uint64) places {
	return p[sort.Search(len(p), func(i int) bool { return p[i].GFN+p[i].Count > gfn }):]
}

// next is the first page from gfn on in an extent; end if there is none.
func (p places) next(gfn, end uint64) uint64 {
	if rest := p.from(gfn); len(rest) > 0 {
		return max(gfn, rest[0].GFN)
	}
	return end
}

// nextHole is the first page from gfn on in no extent; end if there is none.
func (p places) nextHole(gfn, end uint64) uint64 {
	for _, x := range p.from(gfn) {
		if x.GFN > gfn {
			break
		}
		gfn = x.GFN + x.Count
	}
	return min(gfn, end)
}

// holes calls fn for each run of pages between extents, and up to the end, until it says false.
func (p places) holes(end uint64, fn func(first, count uint64) bool) {
	at := uint64(0)
	for _, x := range p {
		if x.GFN > at && !fn(at, x.GFN-at) {
			return
		}
		at = x.GFN + x.Count
	}
	if at < end {
		fn(at, end-at)
	}
}
