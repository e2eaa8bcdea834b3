package fs

// A neighbourhood decides whether the locality blocks of demanded pages are worth pushing. The server
// does not see which pages are used that it has pushed. So of some blocks one page is left out, a
// probe: if the guest uses its blocks, it will read the probes. A block costs one credit, a probe that
// is read soon brings so many that they last if more than a quarter of the pages is used. Without credit
// nothing is pushed, and every READ is seen: READs close to one another, soon one after another, bring
// it back.
//
// A guest that jumps about in a set reads all probes at some time, because it uses all pages. Its READs
// would take longer if the processors were busy with pages that it wants much later, so these count for
// nothing.
//
// It is guarded by the lock of its streams.
type neighbourhood struct {
	credit int
	off    bool
	blocks int    // pushed
	reads  uint64 // of single pages
	probes [64]probe
	recent [16]uint64 // the neighbourhood of some of the last READs, plus one
}

// A probe is a page that was left out, and what its READ brings until there have been so many.
type probe struct {
	page  uint64 // plus one
	gain  int
	until uint64
}

const (
	firstCredit = 24
	maxCredit   = 64
	// backCredit is what turns it on again.
	backCredit = 16
	// closeBy is how many positions make a neighbourhood.
	closeBy = 16
	// soon is in READs. A guest that works with a block reads the probe in it within a few dozen, with many
	// processors within some hundred.
	soon = 512
)

// pays notes a READ at a position of the layout, which no push could have brought, and says whether to
// push its block.
func (n *neighbourhood) pays(pos uint64) bool {
	near := pos/closeBy + 1
	seen := &n.recent[near%uint64(len(n.recent))]
	again := *seen == near
	*seen = near
	if n.off {
		if again {
			n.earn(4)
		} else {
			n.credit = max(n.credit-1, 0)
		}
	}
	return !n.off
}

// earn adds to the credit.
func (n *neighbourhood) earn(gain int) {
	n.credit = min(n.credit+gain, maxCredit)
	if n.credit >= backCredit {
		n.off = false
	}
}

// used notes that a reader has come through what was pushed for it.
func (n *neighbourhood) used() { n.earn(1) }

// spend notes that a block is pushed, and returns the gain of its probe; 0 if it needs none. The less
// credit there is, the more probes.
func (n *neighbourhood) spend() (gain int) {
	n.credit--
	n.off = n.credit <= 0
	n.blocks++
	every := 4
	if n.credit >= maxCredit/4 {
		every = 16
	}
	if n.blocks%every == 0 {
		return 4 * every
	}
	return 0
}

// probe notes a page that is left out.
func (n *neighbourhood) probe(gfn uint64, gain int) {
	n.probes[gfn%uint64(len(n.probes))] = probe{gfn + 1, gain, n.reads + soon}
}

// read notes a READ of a page, which may be a probe.
func (n *neighbourhood) read(gfn uint64) {
	n.reads++
	if p := &n.probes[gfn%uint64(len(n.probes))]; p.page == gfn+1 {
		if n.reads <= p.until {
			n.earn(p.gain)
		}
		*p = probe{}
	}
}
