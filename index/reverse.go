package index

import (
	"slices"
)

// reverseMap says for each stored page which pages of an image it is: eight bytes a page.
type reverseMap struct {
	packs [][]slotGFN // by position of the pack; sorted
}

// slotGFN is slot<<32 | gfn. An image has at most 2^32 pages.
type slotGFN uint64

func (x slotGFN) slot() uint32 { return uint32(x >> 32) }
func (x slotGFN) gfn() uint64  { return uint64(uint32(x)) }

func newReverseMap(m *pageMap) *reverseMap {
	counts := make([]int, len(m.packs))
	m.each(func(_, place uint64) { counts[place>>24]++ })
	r := &reverseMap{packs: make([][]slotGFN, len(m.packs))}
	for i, n := range counts {
		r.packs[i] = make([]slotGFN, 0, n)
	}
	m.each(func(gfn, place uint64) {
		p := &r.packs[place>>24]
		*p = append(*p, slotGFN(place&(1<<24-1)<<32|gfn))
	})
	for i, p := range r.packs {
		r.packs[i] = sortBySlot(p)
	}
	return r
}

// sortBySlot sorts the pages of a pack, which ascend by gfn. It may use them as it likes.
func sortBySlot(pages []slotGFN) []slotGFN {
	last := uint32(0)
	for _, x := range pages {
		last = max(last, x.slot())
	}
	// Much of an image is stored in its own order. And a pack that is shared may have few of its pages.
	if slices.IsSorted(pages) || int(last) > 4*len(pages) {
		slices.Sort(pages)
		return pages
	}
	at := make([]uint32, last+2) // where the pages of a slot begin
	for _, x := range pages {
		at[x.slot()+1]++
	}
	for i := range at[1:] {
		at[i+1] += at[i]
	}
	sorted := make([]slotGFN, len(pages))
	for _, x := range pages {
		sorted[at[x.slot()]] = x
		at[x.slot()]++
	}
	return sorted
}

// slots returns the pages in the slots first..end-1 of a pack, in the order of the slots.
func (r *reverseMap) slots(pack int, first, end uint32) []slotGFN {
	p := r.packs[pack]
	from, _ := slices.BinarySearch(p, slotGFN(first)<<32)
	n, _ := slices.BinarySearch(p[from:], slotGFN(end)<<32)
	return p[from : from+n]
}

// maxCopies is how many pages of an image may have the content of one slot and still be taken for
// neighbours of what lies beside it. If thousands of pages are the same, their neighbourhood
// says nothing, and reading all of them with a block would copy megabytes for one page.
const maxCopies = 4

// near appends to dst the pages in the slots first..end-1 of a pack, without those that have more
// than maxCopies like them.
func (r *reverseMap) near(pack int, first, end uint32, dst []slotGFN) []slotGFN {
	pages := r.slots(pack, first, end)
	for len(pages) > 0 {
		n := 1
		for n < len(pages) && pages[n].slot() == pages[0].slot() {
			n++
		}
		if n <= maxCopies {
			dst = append(dst, pages[:n]...)
		}
		pages = pages[n:]
	}
	return dst
}
