package scan

import "github.com/thawfs/thaw/wss/pagetable"

// space is an address space: an uppermost table that a vCPU has used, or a page of memory that
// looks like one.
//
// Such a page may be left over from a dead process, or be part of a memory dump. Clearing bits below it
// would destroy data, because its former tables are used for something else. But a page in which a vCPU
// sets bits is a table. So a page that was only found is first armed: only the bits in the page itself
// are cleared. When bits are set again it is alive, and from then on it is walked below set bits, each
// time after a check that all tables there are well-formed.
type space struct {
	mode  pagetable.Mode
	seen  bool // a vCPU was using it at a sweep
	armed bool
	alive bool
	// old: it may have existed, unknown, before the last sweep, so its bits may have been set at any
	// time. They are cleared once without being counted.
	old bool
}

// kernelHalf is the upper half of an uppermost table without access and dirty bits. Kernels map
// themselves into all of their address spaces by the same entries (Linux copies them into every table),
// so a page with this half is one of them.
type kernelHalf struct {
	words  [upperHalf]uint64
	used   int
	probes [3]int // numbers of used entries, for a quick test
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

// like is a quick test whether a table may have this upper half.
func (h *kernelHalf) like(table *pagetable.Table) bool {
	for _, i := range h.probes {
		if table.Entry(upperHalf+i)&halfMask == h.words[i] {
			return true
		}
	}
	return false
}

// matches says whether a table has this upper half. If a kernel has many entries, one or two may
// differ: Linux has some that are specific to each space, or are made on first use.
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

// paired says whether two tables are the kernel's and the user's view of one address space (page table
// isolation): their lower halves are equal, except for no-execute bits in the kernel's view.
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

// matching returns one that a table has; nil: none.
func (all kernelHalves) matching(table *pagetable.Table) *kernelHalf {
	for _, h := range all {
		if h.matches(table) {
			return h
		}
	}
	return nil
}
