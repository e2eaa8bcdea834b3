package scan

import "github.com/thawfs/thaw/wss/pagetable"

// space is an address space: an uppermost table that a vCPU was seen to use, or a page of memory that
// looks like one.
//
// Looks can deceive: a page may be what is left of a dead process, or part of a dump of memory. To
// clear bits below such a page would destroy data, as its tables are somebody else's by now. What a
// vCPU sets bits in is a table, though. So a page that was only found is first armed: the bits in it
// are cleared, and nothing else. When bits come back it is alive, and from then on it is walked
// where they are set, each time after a check that all tables there are well-formed.
type space struct {
	mode  pagetable.Mode
	seen  bool // a vCPU used it at a sweep
	armed bool
	alive bool
	// old: it may have been there before the last sweep without being known, so that its bits may
	// have been set at any time. They are cleared once and not told.
	old bool
}

// kernelHalf is the upper half of an uppermost table without access and dirty bits. Kernels map
// themselves into all of their address spaces by the same entries (Linux copies them into every
// table), so what has this half is one of them.
type kernelHalf struct {
	words  [upperHalf]uint64
	used   int
	probes [3]int // numbers of used words, for a quick look
}

const halfMask = ^uint64(pagetable.Accessed | pagetable.Dirty)

func newKernelHalf(table *pagetable.Table) *kernelHalf {
	h := new(kernelHalf)
	var used []int
	for i := range h.words {
		if h.words[i] = table.Entry(upperHalf+i) & halfMask; h.words[i] != 0 {
			used = append(used, i)
		}
	}
	if h.used = len(used); h.used > 0 {
		h.probes = [3]int{used[0], used[h.used/2], used[h.used-1]}
	}
	return h
}

// like says, at a glance, whether a table may have this upper half.
func (h *kernelHalf) like(table *pagetable.Table) bool {
	for _, i := range h.probes {
		if table.Entry(upperHalf+i)&halfMask == h.words[i] {
			return true
		}
	}
	return false
}

// matches says whether a table has this upper half. A kernel with many entries may have one or two
// that differ: what Linux has of its own in each space, or makes when it is first used.
func (h *kernelHalf) matches(table *pagetable.Table) bool {
	differ := 0
	if h.used >= 16 {
		differ = 2
	}
	for i, word := range h.words {
		if table.Entry(upperHalf+i)&halfMask != word {
			if differ--; differ < 0 {
				return false
			}
		}
	}
	return true
}

// paired says whether two tables are the kernel's and the user's view of one address space (page
// table isolation): their lower halves are equal but for the no-execute bits that the kernel's has.
func paired(a, b *pagetable.Table) bool {
	const mask = halfMask &^ pagetable.NX
	used := false
	for i := range upperHalf {
		x, y := a.Entry(i)&mask, b.Entry(i)&mask
		if x != y {
			return false
		}
		used = used || x != 0
	}
	return used
}

// kernelHalves are the upper halves of all spaces that are in use.
type kernelHalves []*kernelHalf

// have says whether one of them has this entry.
func (all kernelHalves) have(i int, entry uint64) bool {
	for _, h := range all {
		if h.words[i-upperHalf] == entry&halfMask {
			return true
		}
	}
	return false
}

// matching is one that a table has; nil: none.
func (all kernelHalves) matching(table *pagetable.Table) *kernelHalf {
	for _, h := range all {
		if h.matches(table) {
			return h
		}
	}
	return nil
}
