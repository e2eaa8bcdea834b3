package fs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/thawfs/thaw/wss/learn"
)

// A candidateFeed brings a candidate on trial: the pieces of the image's set, and pages that it has beside
// these, which are read from the blocks. What it leaves out of the set is not pushed (watch.out).
//
// The added pages come where their times belong. A set without times comes after them.
type candidateFeed struct {
	set, add Feed
	order    []int // of the pieces: those of set, then those of add
	dues     []due // of the pieces of add
}

var _ Feed = (*candidateFeed)(nil)

// newCandidateFeed makes the feed of a candidate of an image whose set is wanted at these times.
func newCandidateFeed(h *openImage, add []learn.Page, of *schedule) *candidateFeed {
	add = slices.Clone(add)
	slices.SortStableFunc(add, func(a, b learn.Page) int { return cmp.Compare(a.At, b.At) })
	runs := make([]Run, len(add))
	at := make(map[uint64]time.Duration, len(add))
	for i, p := range add {
		runs[i], at[p.GFN] = Run{GFN: p.GFN, Count: 1}, p.At
	}
	c := &candidateFeed{set: h.ws, add: h.mem.PagesFeed(runs)}
	var gfns []uint64
	for i := range c.add.Len() {
		gfns = c.add.GFNs(i, gfns[:0])
		d := due{pages: len(gfns), at: never}
		for _, gfn := range gfns {
			d.at = min(d.at, at[gfn])
		}
		c.dues = append(c.dues, d)
	}
	next := 0
	for i, d := range of.pieces {
		for ; next < len(c.dues) && (!of.timed || c.dues[next].at <= d.at); next++ {
			c.order = append(c.order, c.set.Len()+next)
		}
		c.order = append(c.order, i)
	}
	for ; next < len(c.dues); next++ {
		c.order = append(c.order, c.set.Len()+next)
	}
	return c
}

// schedule says when its pieces are wanted, as those of the set are.
func (c *candidateFeed) schedule(of *schedule) *schedule {
	s := &schedule{pieces: make([]due, len(c.order)), timed: of.timed || c.set.Len() == 0}
	for i, n := range c.order {
		if n >= c.set.Len() {
			s.pieces[i] = c.dues[n-c.set.Len()]
		} else {
			s.pieces[i] = of.pieces[n]
		}
	}
	return s
}

func (c *candidateFeed) Len() int { return len(c.order) }

// piece is a piece of one of the two feeds.
func (c *candidateFeed) piece(i int) (of Feed, at int) {
	if n := c.order[i]; n >= c.set.Len() {
		return c.add, n - c.set.Len()
	}
	return c.set, c.order[i]
}

func (c *candidateFeed) GFNs(i int, dst []uint64) []uint64 {
	of, at := c.piece(i)
	return of.GFNs(at, dst)
}

func (c *candidateFeed) Parallel() int { return c.set.Parallel() }

func (c *candidateFeed) Fetch(ctx context.Context, i int, p *Piece) error {
	of, at := c.piece(i)
	return of.Fetch(ctx, at, p)
}

// Decode is that of the set: see Image.PagesFeed.
func (c *candidateFeed) Decode(p *Piece) error { return c.set.Decode(p) }
