package index

import (
	"context"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// liveSet is what checkpoints refer to: pages and records, by pack.
type liveSet struct {
	packs map[uint64]*livePack
	nodes map[uint64]bool // nodes that were walked already: much is shared between checkpoints
}

// livePack is what is needed of one pack.
type livePack struct {
	slots   []uint64 // bitmap
	records map[int]bool
	segment bool // all frames
	pages   int  // bits in slots
}

func newLiveSet() *liveSet {
	return &liveSet{packs: map[uint64]*livePack{}, nodes: map[uint64]bool{}}
}

func (l *liveSet) pack(number uint64) *livePack {
	p := l.packs[number]
	if p == nil {
		p = &livePack{records: map[int]bool{}}
		l.packs[number] = p
	}
	return p
}

func (p *livePack) addSlot(slot uint32) {
	for int(slot/64) >= len(p.slots) {
		p.slots = append(p.slots, make([]uint64, max(64, len(p.slots)))...)
	}
	if word, bit := &p.slots[slot/64], uint64(1)<<(slot%64); *word&bit == 0 {
		*word |= bit
		p.pages++
	}
}

func (p *livePack) hasSlot(slot uint32) bool {
	return p != nil && int(slot/64) < len(p.slots) && p.slots[slot/64]>>(slot%64)&1 != 0
}

func (p *livePack) hasRecord(i int) bool { return p != nil && p.records[i] }

// record notes a node or part of a file; new says that it was not there.
func (l *liveSet) record(ref uint64) (added bool) {
	if ref == 0 || l.nodes[ref] {
		return false
	}
	l.nodes[ref] = true
	l.pack(ref >> 24).records[int(pack.Ref(ref).Slot())] = true
	return true
}

// addRoot walks all that a root refers to.
func (l *liveSet) addRoot(ctx context.Context, n nodes, r *root) error {
	for _, parts := range r.FileParts {
		for _, ref := range parts.Parts {
			if ref>>24 != rootNumber {
				l.record(ref)
			}
		}
	}
	if r.top.segment != 0 {
		l.pack(r.top.segment).segment = true
	}
	w := liveWalker{l: l, n: n}
	for _, ref := range r.top.branches {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ref != 0 && l.record(ref) {
			if err := w.branch(ref); err != nil {
				return fmt.Errorf("checkpoint %s: %w", r.Name, err)
			}
		}
	}
	return nil
}

// liveWalker holds what walking a branch needs.
type liveWalker struct {
	l    *liveSet
	n    nodes
	b    branch
	refs leaf
	last uint64
	pack *livePack
}

func (w *liveWalker) branch(ref uint64) error {
	if err := readBranch(w.n, ref, &w.b); err != nil {
		return err
	}
	for _, c := range &w.b {
		if c.zero() || c.ref != 0 && !w.l.record(c.ref) {
			continue
		}
		base, err := readLeaf(w.n, c, &w.refs)
		if err != nil {
			return err
		}
		w.l.record(base)
		for _, r := range w.refs {
			if r == 0 {
				continue
			}
			if n := r >> 24; n != w.last || w.pack == nil {
				w.last, w.pack = n, w.l.pack(n)
			}
			w.pack.addSlot(pack.Ref(r).Slot())
		}
	}
	return nil
}
