package uffd

import "sync"

// A neighbourhood decides whether the pages that are stored beside a wanted one are worth bringing along. The
// pager does not see which of them are used. So of some blocks one page is left out, a probe: if the VM uses
// its blocks, it will fault on the probes. A block costs one credit, a probe that is wanted brings so many
// that they last if more than a quarter of the pages is used. Without credit nothing is brought along, and
// every fault is seen: two in one block, soon one after another, bring some back. So a VM that jumps about
// in its memory is not slowed down by what it does not want, nor does that take its memory.
type neighbourhood struct {
	mu     sync.Mutex
	credit int
	off    bool
	blocks int    // brought
	faults uint64 // all
	probes [64]probe
	recent [16]uint64 // some of the last blocks that were wanted, plus one
}

// A probe is a page that was left out, plus one, and what a fault on it brings until there have been so
// many: a VM that jumps about wants all pages at some time, and probes at such a time count for nothing.
type probe struct {
	page  uint64
	gain  int
	until uint64
}

const (
	firstCredit = 24
	maxCredit   = 64
	backCredit  = 16 // turns it on again
	againCredit = 4  // of a second fault in a block
	soon        = 512
)

func newNeighbourhood() *neighbourhood { return &neighbourhood{credit: firstCredit} }

// wanted notes a fault on a page.
func (n *neighbourhood) wanted(page uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults++
	if p := &n.probes[page%uint64(len(n.probes))]; p.page == page+1 {
		if n.faults <= p.until {
			n.earn(p.gain)
		}
		*p = probe{}
	}
}

// pays says whether to bring a block of which a page was wanted, and what its probe is worth; 0: it
// needs none.
func (n *neighbourhood) pays(block uint64) (bring bool, gain int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := &n.recent[block*0x9e3779b97f4a7c15>>60] // blocks begin anywhere, and often at multiples of 16
	again := *seen == block+1
	*seen = block + 1
	if n.off {
		if again {
			n.earn(againCredit)
		} else {
			n.credit = max(n.credit-1, 0)
		}
	}
	if n.off {
		return false, 0
	}
	n.credit--
	n.off = n.credit <= 0
	n.blocks++
	every := 4 // the less credit there is, the more probes
	if n.credit >= maxCredit/4 {
		every = 16
	}
	if n.blocks%every == 0 {
		gain = 4 * every
	}
	return true, gain
}

func (n *neighbourhood) earn(gain int) {
	n.credit = min(n.credit+gain, maxCredit)
	if n.credit >= backCredit {
		n.off = false
	}
}

// probe notes a page that is left out.
func (n *neighbourhood) probe(page uint64, gain int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.probes[page%uint64(len(n.probes))] = probe{page + 1, gain, n.faults + soon}
}
