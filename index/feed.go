package index

import (
	"context"
	"fmt"
)

// Feed is an image or a part of it cut into pieces, each of them one sequential read. Pieces may be
// read in any order and by many goroutines, each with a Piece of its own.
type Feed interface {
	Len() int
	Read(ctx context.Context, i int, p *Piece) error
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

func (f *eagerFeed) Read(ctx context.Context, i int, p *Piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	piece := f.pieces[i]
	open, err := f.m.acquire(uint64(piece.pack))
	if err != nil {
		return err
	}
	defer open.release()
	return f.m.readSlots(open, f.m.reverse.packs[piece.pack][piece.from:piece.to], p)
}

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
	f.frames = p.Frames()
	stored := uint64(0)
	for i := range f.frames {
		stored += uint64(p.Frame(i).Pages)
	}
	_ = frameGFNs(tail(m.root.hot, stored), maxPages, func(gfns []uint64) error {
		f.rest = append(f.rest, gfns)
		return nil
	})
	return f
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
	frames  int
	rest    [][]uint64
}

func (f *hotFeed) Len() int { return f.frames + len(f.rest) }

func (f *hotFeed) Read(ctx context.Context, i int, p *Piece) error {
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
	if err := open.ReadFrame(i, &p.frame); err != nil {
		return f.m.spanError(err)
	}
	p.GFNs, p.Pages = p.frame.GFNs, p.frame.Pages
	if n := len(p.GFNs); n > 0 && p.GFNs[n-1] >= f.m.pages.pages {
		return &CorruptError{Pack: open.Name(), What: fmt.Sprintf("frame %d: page %d of %d",
			i, p.GFNs[n-1], f.m.pages.pages)}
	}
	return nil
}
