package index

import "math/bits"

// NextData is the first page from gfn on that is not zero; Pages if there is none. Like NextZero it goes
// by the nodes of the page map and not by pages, and asks nobody: what is zero in one run takes one step a
// gigabyte.
func (m *Image) NextData(gfn uint64) uint64 { return m.pages.next(gfn, true) }

// NextZero is the first page from gfn on that is zero; Pages if there is none.
func (m *Image) NextZero(gfn uint64) uint64 { return m.pages.next(gfn, false) }

// DataBefore is how many pages before gfn are not zero.
func (m *Image) DataBefore(gfn uint64) uint64 { return m.pages.dataBefore(gfn) }

// next is the first page from gfn on that is not zero, or is; the number of pages if there is none.
func (m *pageMap) next(gfn uint64, data bool) uint64 {
	for gfn < m.pages {
		b := m.branches[gfn/branchPages]
		if b == nil {
			if !data {
				return gfn
			}
			gfn = (gfn/branchPages + 1) * branchPages
			continue
		}
		pos := b.index[gfn/LeafPages%branchLeaves]
		if pos == 0 {
			if !data {
				return gfn
			}
			gfn = (gfn/LeafPages + 1) * LeafPages
			continue
		}
		word := b.leaves[pos-1].bits[gfn/64%8]
		if !data {
			word = ^word
		}
		if word >>= gfn % 64; word != 0 {
			return min(gfn+uint64(bits.TrailingZeros64(word)), m.pages)
		}
		gfn = (gfn/64 + 1) * 64
	}
	return m.pages
}

// dataBefore counts the pages before gfn that are not zero.
func (m *pageMap) dataBefore(gfn uint64) uint64 {
	if gfn >= m.pages {
		return m.data
	}
	i := gfn / branchPages
	n := m.before[i]
	b := m.branches[i]
	if b == nil {
		return n
	}
	return n + b.dataBefore(gfn%branchPages)
}

// dataBefore counts the pages before page at of the branch that are not zero.
func (b *branchMap) dataBefore(at uint64) uint64 {
	leaf := at / LeafPages
	pos := b.index[leaf]
	if pos == 0 { // the leaves are in the order of their pages
		for _, next := range b.index[leaf:] {
			if next != 0 {
				return uint64(b.leaves[next-1].before[0])
			}
		}
		return uint64(len(b.places))
	}
	l := &b.leaves[pos-1]
	word, bit := at/64%8, at%64
	return uint64(l.before[word]) + uint64(bits.OnesCount64(l.bits[word]&(1<<bit-1)))
}
