package index

import (
	"context"
	"fmt"
	"iter"
	"math/bits"

	"github.com/thawfs/thaw/index/pack"
)

// liveSet is what checkpoints refer to: pages and records, by pack.
//
// That a record must be kept and that a node was walked are two things: the base of a difference is
// kept, but its own pages are not all of them needed, until it is met as a leaf itself.
type liveSet struct {
	packs map[uint64]*livePack

	// Of the branch that is being walked.
	branch branch
	leaf   leaf
}

// livePack is what is needed of one pack.
type livePack struct {
	slots   bitmap // pages to keep
	records bitmap // nodes and parts of files to keep
	walked  bitmap // nodes whose own references were noted: much is shared between checkpoints
	segment bool   // all frames
}

func newLiveSet() *liveSet { return &liveSet{packs: map[uint64]*livePack{}} }

func (l *liveSet) pack(number uint64) *livePack {
	p := l.packs[number]
	if p == nil {
		p = &livePack{}
		l.packs[number] = p
	}
	return p
}

func (p *livePack) hasSlot(slot uint32) bool { return p != nil && p.slots.has(slot) }

func (p *livePack) hasRecord(i int) bool { return p != nil && p.records.has(uint32(i)) }

// keep notes that a record must stay: a node or part of a file.
func (l *liveSet) keep(ref uint64) {
	l.pack(ref >> 24).records.add(pack.Ref(ref).Slot())
}

// walk notes that a node must stay, and says whether it is still to be walked.
func (l *liveSet) walk(ref uint64) bool {
	l.keep(ref)
	return l.pack(ref >> 24).walked.add(pack.Ref(ref).Slot())
}

// bitmap is a set of small numbers; it grows as they come.
type bitmap []uint64

// add puts i in and says whether it was not there.
func (b *bitmap) add(i uint32) bool {
	for int(i/64) >= len(*b) {
		*b = append(*b, make([]uint64, max(64, len(*b)))...)
	}
	word, bit := &(*b)[i/64], uint64(1)<<(i%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// meets says whether the two have a number in common.
func (b bitmap) meets(o bitmap) bool {
	for i := range min(len(b), len(o)) {
		if b[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// all are the numbers in it, ascending.
func (b bitmap) all() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i, word := range b {
			for ; word != 0; word &= word - 1 {
				if !yield(uint32(i*64 + bits.TrailingZeros64(word))) {
					return
				}
			}
		}
	}
}

func (b bitmap) has(i uint32) bool {
	return int(i/64) < len(b) && b[i/64]>>(i%64)&1 != 0
}

// addRoot walks all that a root refers to.
func (l *liveSet) addRoot(ctx context.Context, n nodes, r *root) error {
	for _, parts := range r.FileParts {
		for _, ref := range parts.Parts {
			if ref>>24 != rootNumber {
				l.keep(ref)
			}
		}
	}
	if r.top.segment != 0 {
		l.pack(r.top.segment).segment = true
	}
	for _, ref := range r.top.branches {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ref != 0 && l.walk(ref) {
			if err := l.addBranch(n, ref); err != nil {
				return fmt.Errorf("checkpoint %s: %w", r.Name, err)
			}
		}
	}
	return nil
}

func (l *liveSet) addBranch(n nodes, ref uint64) error {
	if err := readBranch(n, ref, &l.branch); err != nil {
		return err
	}
	for _, c := range &l.branch {
		if c.zero() || c.ref != 0 && !l.walk(c.ref) {
			continue
		}
		base, err := readLeaf(n, c, &l.leaf)
		if err != nil {
			return err
		}
		if base != 0 {
			l.keep(base)
		}
		last, p := uint64(0), (*livePack)(nil)
		for _, r := range l.leaf {
			if r == 0 {
				continue
			}
			if p == nil || r>>24 != last {
				last, p = r>>24, l.pack(r>>24)
			}
			p.slots.add(pack.Ref(r).Slot())
		}
	}
	return nil
}
