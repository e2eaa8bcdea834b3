package index

import (
	"cmp"
	"context"
	"slices"

	"github.com/thawfs/thaw/index/blob"
)

// Feed is an image or a part of it cut into pieces, each of them one sequential read, which follow
// one another where they lie. Pieces may be read by many goroutines, each with a Piece of its own.
type Feed interface {
	Len() int
	// GFNs appends to dst the pages that piece i should have, in the order of the piece, without I/O.
	GFNs(i int, dst []uint64) []uint64
	// Fetch reads piece i as it is stored. Fetches one after another, in ascending order, are one
	// sequential read; how many at once are of use, Parallel says. Damage is not an error yet.
	Fetch(ctx context.Context, i int, p *Piece) error
	// Decode makes pages of what was fetched. Pages that cannot be read are left out, and named by a
	// *PagesError; p still has the others. After any other error it has none.
	Decode(p *Piece) error
	// Parallel is how many Fetches at once the medium serves better than one.
	Parallel() int
}

// ReadPiece fetches and decodes piece i of a feed. A *PagesError says that p is without some pages.
func ReadPiece(ctx context.Context, f Feed, i int, p *Piece) error {
	if err := f.Fetch(ctx, i, p); err != nil {
		return err
	}
	return f.Decode(p)
}

// eagerPages is about how many pages a piece of an EagerFeed has (1 MiB).
const eagerPages = 256

// eagerGap is how many pages of other images a piece may contain side by side. They are read and ignored,
// which is faster than another read.
const eagerGap = 16

// EagerFeed returns everything that is not zero, in the order of the packs, about 1 MiB a piece.
func (m *Image) EagerFeed() Feed {
	f := &eagerFeed{m: m}
	for i, pages := range m.reverse().packs {
		for from := 0; from < len(pages); {
			to := from + 1
			for to < len(pages) && m.eagerly(i, pages[to-1].spot(), pages[to].spot(), to-from) {
				to++
			}
			f.pieces = append(f.pieces, eagerPiece{pack: i, from: from, to: to})
			from = to
		}
	}
	return f
}

// eagerly says whether a page of a pack belongs to a piece that has n pages and ends with another one. A
// cluster is not cut, because each part would cost as much as all of it.
func (m *Image) eagerly(position int, last, spot uint32, n int) bool {
	if m.spots[position].Together(last, spot) {
		return n < 2*eagerPages
	}
	return n < eagerPages && spot-last <= eagerGap
}

type eagerFeed struct {
	m      *Image
	pieces []eagerPiece
}

// eagerPiece is the pages from..to-1 of a pack's part of the reverse map.
type eagerPiece struct{ pack, from, to int }

func (f *eagerFeed) Len() int { return len(f.pieces) }

func (f *eagerFeed) GFNs(i int, dst []uint64) []uint64 {
	piece := f.pieces[i]
	for _, page := range f.m.reverse().packs[piece.pack][piece.from:piece.to] {
		dst = append(dst, page.gfn())
	}
	return dst
}

func (f *eagerFeed) Parallel() int { return f.m.parallel() }

func (f *eagerFeed) Fetch(ctx context.Context, i int, p *Piece) error {
	p.reset(0)
	p.err = nil
	if err := ctx.Err(); err != nil {
		return err
	}
	piece := f.pieces[i]
	p.slots = f.m.reverse().packs[piece.pack][piece.from:piece.to]
	open, err := f.m.acquire(uint64(piece.pack))
	if isDamage(err) {
		p.err = f.m.loseAll(p.slots, err)
		return nil
	}
	if err != nil {
		return f.m.spanError(err)
	}
	defer open.release()
	first, span := extent(p.slots)
	p.from = &p.span
	if b, ok := f.m.s.blocks.whole(open.Reader, first, span); ok {
		// All pieces of a page that the image has a thousand times, for example: read once.
		p.from, err = f.m.s.blocks.get(open.Reader, b)
	} else {
		err = open.FetchSpots(first, span, &p.span)
	}
	return f.m.spanError(err)
}

func (f *eagerFeed) Decode(p *Piece) error {
	if p.err != nil {
		return p.err
	}
	return f.m.fill(p, p.slots, p.from.ReadSpots)
}

// parallel is how many reads at once the medium of the packs serves better than one.
func (m *Image) parallel() int { return max(blob.MediumOf(m.s.blobs).Parallel, 1) }

// pieces cuts pages into parts that are read from the blocks. They come in the order of first
// touch, but on a high-latency medium in the order in which they are stored: otherwise every block
// with pages of several pieces would be read several times, each time from another place.
func (m *Image) pieces(runs []Run) (all [][]uint64) {
	if m.s.blocks != nil {
		runs = m.asStored(runs)
	}
	_ = frameGFNs(runs, maxPages, func(gfns []uint64) error {
		all = append(all, gfns)
		return nil
	})
	return all
}

// asStored returns the pages of runs in the order of their places, those of zeros first.
func (m *Image) asStored(runs []Run) (ordered []Run) {
	eachPage(runs, func(gfn uint64) { ordered = append(ordered, Run{gfn, 1}) })
	place := func(r Run) uint64 {
		position, spot, ok := m.spot(r.GFN)
		if !ok {
			return 0
		}
		return position<<32 | uint64(spot) + 1
	}
	slices.SortStableFunc(ordered, func(a, b Run) int { return cmp.Compare(place(a), place(b)) })
	return ordered
}

// tail returns runs without their first skip pages.
func tail(runs []Run, skip uint64) []Run {
	for i, r := range runs {
		if r.Count > skip {
			out := append([]Run{{r.GFN + skip, r.Count - skip}}, runs[i+1:]...)
			return out
		}
		skip -= r.Count
	}
	return nil
}
