package index

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
)

// WorkingSetFeed returns the working set in first-touch order, its zero pages included. Its Len is 0
// without a working set. Pages that the segment has no room for come after it, from the blocks. Pages
// that cannot be read from the segment also come from the blocks, where every page is stored as well.
func (m *Image) WorkingSetFeed() Feed {
	f := m.workingSetFeed()
	if m.root.top.segment != 0 {
		f.rest = m.pieces(tail(m.root.setRuns, f.stored))
	}
	return f
}

// PagesFeed returns some pages of the image in their order, read from the blocks, as pieces of 256 pages at
// most. A WorkingSetFeed decodes what was fetched of it, too.
func (m *Image) PagesFeed(runs []Run) Feed {
	return struct{ Feed }{&workingSetFeed{m: m, rest: m.pieces(runs)}}
}

// workingSetFeed is the feed of what the segment has.
func (m *Image) workingSetFeed() *workingSetFeed {
	f := &workingSetFeed{m: m}
	if m.root.top.segment == 0 {
		return f
	}
	stored, err := f.open()
	if err != nil {
		f.warn(err)
		f.frames, stored = nil, 0
	}
	f.stored = stored
	return f
}

type workingSetFeed struct {
	m       *Image
	segment uint64 // position of the segment's pack
	frames  []segmentFrame
	stored  uint64 // pages in them
	rest    [][]uint64
	warned  atomic.Bool
}

// segmentFrame is where in the working set the pages of a frame begin, and how many there are.
type segmentFrame struct {
	run   int
	skip  uint64 // pages of the run
	pages int
}

// open finds out what each frame of the segment should hold, and how many pages that is together.
func (f *workingSetFeed) open() (stored uint64, err error) {
	top, set := f.m.root.top, f.m.root.setRuns
	if err := f.m.root.lostSet; err != nil {
		return 0, err
	}
	pos, ok := searchUint64(top.packs, top.segment)
	if !ok {
		return 0, &CorruptError{Pack: rootName(f.m.root.Name, f.m.root.Generation),
			What: "list of packs", Err: errors.New("the segment is not in it")}
	}
	f.segment = uint64(pos)
	p, err := f.m.acquire(f.segment)
	if err != nil {
		return 0, err
	}
	defer p.release()
	frames := make([]segmentFrame, p.Frames())
	at := segmentFrame{}
	for i := range frames {
		at.pages = p.Frame(i).Pages
		frames[i] = at
		for left := uint64(at.pages); left > 0; {
			if at.run == len(set) {
				return 0, &CorruptError{Pack: p.Name(), What: "frames",
					Err: errors.New("they have more pages than the working set")}
			}
			n := min(left, set[at.run].Count-at.skip)
			left -= n
			if at.skip += n; at.skip == set[at.run].Count {
				at.run, at.skip = at.run+1, 0
			}
		}
		stored += uint64(at.pages)
	}
	f.frames = frames
	return stored, nil
}

// gfns returns the pages that a frame should hold, ascending as in the frame.
func (f *workingSetFeed) gfns(i int) []uint64 {
	return f.frameGFNs(i, make([]uint64, 0, f.frames[i].pages))
}

func (f *workingSetFeed) frameGFNs(i int, dst []uint64) []uint64 {
	at, from := f.frames[i], len(dst)
	for _, r := range f.m.root.setRuns[at.run:] {
		for gfn := r.GFN + at.skip; gfn < r.GFN+r.Count && len(dst)-from < at.pages; gfn++ {
			dst = append(dst, gfn)
		}
		if at.skip = 0; len(dst)-from == at.pages {
			break
		}
	}
	slices.Sort(dst[from:])
	return dst
}

func (f *workingSetFeed) Len() int { return len(f.frames) + len(f.rest) }

func (f *workingSetFeed) GFNs(i int, dst []uint64) []uint64 {
	if i < len(f.frames) {
		return f.frameGFNs(i, dst)
	}
	return append(dst, f.rest[i-len(f.frames)]...)
}

func (f *workingSetFeed) Parallel() int { return f.m.parallel() }

func (f *workingSetFeed) Fetch(ctx context.Context, i int, p *Piece) error {
	p.reset(0)
	p.index, p.ready, p.err = i, false, nil
	if err := ctx.Err(); err != nil {
		return err
	}
	if i >= len(f.frames) {
		f.fromBlocks(f.rest[i-len(f.frames)], p)
		return nil
	}
	open, err := f.m.acquire(f.segment)
	if err != nil {
		return f.m.spanError(err)
	}
	defer open.release()
	if err = open.FetchFrame(i, &p.frame); isDamage(err) {
		f.warn(err)
		f.fromBlocks(f.gfns(i), p)
		return nil
	}
	return f.m.spanError(err)
}

func (f *workingSetFeed) Decode(p *Piece) error {
	if p.ready {
		return p.err
	}
	want := f.gfns(p.index)
	err := p.frame.Decode()
	if err == nil && !slices.Equal(p.frame.GFNs, want) {
		err = errors.New("a frame of the segment has other pages than the working set")
	}
	if err != nil {
		f.warn(err)
		f.fromBlocks(want, p)
		return p.err
	}
	p.GFNs, p.Pages = p.frame.GFNs, p.frame.Pages
	return nil
}

// fromBlocks fills a piece with pages from the blocks, as many as can be read there.
func (f *workingSetFeed) fromBlocks(gfns []uint64, p *Piece) {
	p.reset(0)
	p.GFNs = append(p.GFNs, gfns...)
	p.ready, p.err = true, f.m.readPiece(p)
}

// drop takes pages out of a piece. gfns ascend.
func (p *Piece) drop(gfns []uint64) {
	n := 0
	for i, gfn := range p.GFNs {
		if _, ok := slices.BinarySearch(gfns, gfn); ok {
			continue
		}
		if n != i {
			p.GFNs[n] = gfn
			copy(p.Pages[n*PageSize:][:PageSize], p.Pages[i*PageSize:])
		}
		n++
	}
	p.GFNs, p.Pages = p.GFNs[:n], p.Pages[:n*PageSize]
}

// warn logs once that a segment is damaged. That costs time, but no page.
func (f *workingSetFeed) warn(err error) {
	if f.m.root.lostSet != nil {
		f.m.s.log.Warn("the list of the pages of the working set is damaged: a restore is as without one; "+
			"thaw ws import or record sets it again", "checkpoint", f.m.entry.Name, "err", err)
		return
	}
	if !f.warned.Swap(true) {
		f.m.s.log.Warn("pages of the working set are read one by one from their blocks: the segment "+
			"is damaged; thaw check --repair makes it again", "checkpoint", f.m.entry.Name, "err", err)
	}
}
