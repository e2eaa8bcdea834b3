package index

import (
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// reverseMap says for each stored page which pages of an image it is: eight bytes a page.
type reverseMap struct {
	packs [][]spotGFN // by position of the pack; sorted
}

// spotGFN is spot<<32 | gfn. The spot of a page says where it lies in its pack: see pack.Spots. An image
// has at most 2^32 pages.
type spotGFN uint64

func (x spotGFN) spot() uint32 { return uint32(x >> 32) }
func (x spotGFN) gfn() uint64  { return uint64(uint32(x)) }

// newReverseMap makes the reverse of a page map; spots are those of its packs.
func newReverseMap(m *pageMap, spots []pack.Spots) *reverseMap {
	counts := make([]int, len(m.packs))
	m.each(func(_, place uint64) { counts[place>>24]++ })
	r := &reverseMap{packs: make([][]spotGFN, len(m.packs))}
	for i, n := range counts {
		r.packs[i] = make([]spotGFN, 0, n)
	}
	m.each(func(gfn, place uint64) {
		i := place >> 24
		spot := spots[i].Of(uint32(place & (pack.MaxSlots - 1)))
		r.packs[i] = append(r.packs[i], spotGFN(uint64(spot)<<32|gfn))
	})
	for i, p := range r.packs {
		r.packs[i] = sortBySpot(p)
	}
	return r
}

// sortBySpot sorts the pages of a pack, which ascend by gfn. It may use them as it likes.
func sortBySpot(pages []spotGFN) []spotGFN {
	last := uint32(0)
	for _, x := range pages {
		last = max(last, x.spot())
	}
	// Much of an image is stored in its own order. And a pack that is shared may have few of its pages.
	if slices.IsSorted(pages) || int(last) > 4*len(pages) {
		slices.Sort(pages)
		return pages
	}
	at := make([]uint32, last+2) // where the pages of a spot begin
	for _, x := range pages {
		at[x.spot()+1]++
	}
	for i := range at[1:] {
		at[i+1] += at[i]
	}
	sorted := make([]spotGFN, len(pages))
	for _, x := range pages {
		sorted[at[x.spot()]] = x
		at[x.spot()]++
	}
	return sorted
}

// spots returns the pages at the spots first..end-1 of a pack, in their order.
func (r *reverseMap) spots(pack int, first, end uint32) []spotGFN {
	p := r.packs[pack]
	from, _ := slices.BinarySearch(p, spotGFN(first)<<32)
	n, _ := slices.BinarySearch(p[from:], spotGFN(end)<<32)
	return p[from : from+n]
}

// maxCopies is how many pages of an image may have the content of one slot and still be taken for
// neighbours of what lies beside it. If thousands of pages are the same, their neighbourhood
// says nothing, and reading all of them with a block would copy megabytes for one page.
const maxCopies = 4

// near appends to dst the pages at the spots first..end-1 of a pack, without those that have more
// than maxCopies like them.
func (r *reverseMap) near(pack int, first, end uint32, dst []spotGFN) []spotGFN {
	pages := r.spots(pack, first, end)
	for len(pages) > 0 {
		n := 1
		for n < len(pages) && pages[n].spot() == pages[0].spot() {
			n++
		}
		if n <= maxCopies {
			dst = append(dst, pages[:n]...)
		}
		pages = pages[n:]
	}
	return dst
}
