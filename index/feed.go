package index

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index/blob"
)

// Feed is an image or a part of it cut into pieces, each of them one sequential read, which follow
// one another where they lie. Pieces may be read by many goroutines, each with a Piece of its own.
type Feed interface {
	Len() int
	// Fetch reads piece i as it is stored. Fetches one after another, in ascending order, are one
	// sequential read; how many at once are of use, Parallel says.
	Fetch(ctx context.Context, i int, p *Piece) error
	// Decode makes pages of what was fetched.
	Decode(p *Piece) error
	// Parallel is how many Fetches at once the medium serves better than one.
	Parallel() int
}

// ReadPiece fetches and decodes piece i of a feed.
func ReadPiece(ctx context.Context, f Feed, i int, p *Piece) error {
	if err := f.Fetch(ctx, i, p); err != nil {
		return err
	}
	return f.Decode(p)
}

// eagerPages is about how many pages a piece of an EagerFeed has (1 MiB).
const eagerPages = 256

// eagerGap is how many slots of other images are read over inside of a piece, rather than ending
// it.
const eagerGap = 16

// EagerFeed gives everything that is not zero, in the order of the packs, about 1 MiB a piece.
func (m *Image) EagerFeed() Feed {
	f := &eagerFeed{m: m}
	for i, pages := range m.reverse.packs {
		for from := 0; from < len(pages); {
			to := from + 1
			for to < len(pages) && to-from < eagerPages &&
				pages[to].slot()-pages[to-1].slot() <= eagerGap {
				to++
			}
			f.pieces = append(f.pieces, eagerPiece{pack: i, from: from, to: to})
			from = to
		}
	}
	return f
}

type eagerFeed struct {
	m      *Image
	pieces []eagerPiece
}

// eagerPiece is the pages from..to-1 of a pack's part of the reverse map.
type eagerPiece struct{ pack, from, to int }

func (f *eagerFeed) Len() int { return len(f.pieces) }

func (f *eagerFeed) Parallel() int { return f.m.parallel() }

func (f *eagerFeed) Fetch(ctx context.Context, i int, p *Piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	piece := f.pieces[i]
	open, err := f.m.acquire(uint64(piece.pack))
	if err != nil {
		return err
	}
	defer open.release()
	p.slots = f.m.reverse.packs[piece.pack][piece.from:piece.to]
	first, span := extent(p.slots)
	p.from = &p.span
	if b, ok := f.m.s.blocks.whole(open.Reader, first, span); ok {
		// All pieces of a page that the image has a thousand times, for example: read once.
		p.from, err = f.m.s.blocks.get(open.Reader, b)
	} else {
		err = open.Fetch(first, span, &p.span)
	}
	return f.m.spanError(err)
}

func (f *eagerFeed) Decode(p *Piece) error {
	return f.m.spanError(p.fill(p.slots, p.from.ReadSlots))
}

// parallel is how many reads at once the medium of the packs serves better than one.
func (m *Image) parallel() int { return max(blob.MediumOf(m.s.blobs).Parallel, 1) }

// WorkingSetFeed gives the working set in first-touch order, its zero pages included. Its Len is 0
// without a working set. What the segment has no room for comes behind it, from the blocks.
func (m *Image) WorkingSetFeed() Feed {
	f := &hotFeed{m: m}
	top := m.root.top
	if top.segment == 0 {
		return f
	}
	pos, ok := searchUint64(top.packs, top.segment)
	if !ok {
		return f
	}
	f.segment = m.packs[pos]
	p := f.segment.acquire()
	if p == nil {
		return f
	}
	defer p.release()
	f.frames, f.name = p.Frames(), p.Name()
	stored := uint64(0)
	for i := range f.frames {
		stored += uint64(p.Frame(i).Pages)
	}
	f.rest = m.pieces(tail(m.root.hot, stored))
	return f
}

// pieces cuts pages into parts that are read from the blocks. They come in the order of first
// touch, and where a read is dear in the order in which they are stored: every block that another
// piece has pages of would be read again, and each time from another place.
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

// asStored gives the pages of runs in the order of their places, those of zeros first.
func (m *Image) asStored(runs []Run) (ordered []Run) {
	eachPage(runs, func(gfn uint64) { ordered = append(ordered, Run{gfn, 1}) })
	place := func(r Run) uint64 {
		p, ok := m.pages.place(r.GFN)
		if !ok {
			return 0
		}
		return p + 1
	}
	slices.SortStableFunc(ordered, func(a, b Run) int { return cmp.Compare(place(a), place(b)) })
	return ordered
}

// tail gives runs without their first skip pages.
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

type hotFeed struct {
	m       *Image
	segment *packEntry
	name    string // of the segment's pack
	frames  int
	rest    [][]uint64
}

func (f *hotFeed) Len() int { return f.frames + len(f.rest) }

func (f *hotFeed) Parallel() int { return f.m.parallel() }

func (f *hotFeed) Fetch(ctx context.Context, i int, p *Piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if i >= f.frames {
		gfns := f.rest[i-f.frames]
		p.reset(len(gfns))
		p.GFNs = append(p.GFNs, gfns...)
		p.Pages = p.buf
		return f.m.readPages(gfns, p.Pages)
	}
	open := f.segment.acquire()
	if open == nil {
		return ErrClosed
	}
	defer open.release()
	p.GFNs, p.Pages = nil, nil
	return f.m.spanError(open.FetchFrame(i, &p.frame))
}

func (f *hotFeed) Decode(p *Piece) error {
	if p.GFNs != nil {
		return nil // from the blocks, and decoded there
	}
	if err := p.frame.Decode(); err != nil {
		return f.m.spanError(err)
	}
	p.GFNs, p.Pages = p.frame.GFNs, p.frame.Pages
	if n := len(p.GFNs); n > 0 && p.GFNs[n-1] >= f.m.pages.pages {
		return &CorruptError{Pack: f.name, What: fmt.Sprintf("frame: page %d of %d",
			p.GFNs[n-1], f.m.pages.pages)}
	}
	return nil
}
