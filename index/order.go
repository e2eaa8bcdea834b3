package index

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sort"
)

// An Order is a sequence of pages of an image in which a guest may touch them. A page has a position
// in it, from 0 to Len()-1, or none. All methods may be called by many goroutines at once.
type Order interface {
	Len() uint64
	// Position is where a page comes; false if it does not. It does no I/O and allocates nothing.
	Position(gfn uint64) (pos uint64, ok bool)
	// Part is the end of the positions from pos on that are read at once: about max of them, none
	// beyond Len. Without I/O.
	Part(pos, max uint64) (end uint64)
	// GFNs appends to dst the pages at the positions from pos on, below end, in their order.
	GFNs(pos, end uint64, dst []uint64) []uint64
	// Read reads a part: the pages at its positions, and maybe some beside them, in any order. Pages
	// that cannot be read are left out, and named by a *PagesError; p still has the others.
	Read(ctx context.Context, pos, end uint64, p *Piece) error
}

// Orders are the sequences in which a guest is likely to touch pages of the image, the one that is
// read fastest first: the working set's, as far as its segment goes, and the one in which the pages
// were stored, if its neighbours belong together. They take 32 bytes a run of the set, and eight a page of a
// pack in which many pages are alike.
func (m *Image) Orders() (orders []Order) {
	if o := newSetOrder(m.workingSetFeed()); o.Len() > 0 {
		orders = append(orders, o)
	}
	if m.Layout().Local() {
		orders = append(orders, newLayoutOrder(m))
	}
	return orders
}

// A layoutOrder is the stored pages as they lie in the packs.
type layoutOrder struct {
	m *Image
	// packs are those of the reverse map, without the pages that have more than maxCopies like them:
	// a read of one of those says nothing about where the reader is.
	packs  [][]spotGFN
	before []uint64 // positions before each pack, and of all
}

func newLayoutOrder(m *Image) *layoutOrder {
	o := &layoutOrder{m: m, before: []uint64{0}}
	for i, all := range m.reverse().packs {
		pages := all
		if crowded(all) {
			end := all[len(all)-1].spot() + 1
			pages = slices.Clip(m.reverse().near(i, 0, end, nil))
		}
		o.packs = append(o.packs, pages)
		o.before = append(o.before, o.before[i]+uint64(len(pages)))
	}
	return o
}

// crowded says whether more than maxCopies pages have one slot.
func crowded(pages []spotGFN) bool {
	for i := maxCopies; i < len(pages); i++ {
		if pages[i].spot() == pages[i-maxCopies].spot() {
			return true
		}
	}
	return false
}

func (o *layoutOrder) Len() uint64 { return o.before[len(o.packs)] }

func (o *layoutOrder) Position(gfn uint64) (uint64, bool) {
	pack, spot, ok := o.m.spot(gfn)
	if !ok {
		return 0, false
	}
	pages, want := o.packs[pack], spotGFN(uint64(spot)<<32|gfn)
	// Where the image has all spots of the pack, and each once, spots and positions are the same.
	i := int(want.spot())
	if i >= len(pages) || pages[i] != want {
		if i, ok = slices.BinarySearch(pages, want); !ok {
			return 0, false
		}
	}
	return o.before[pack] + uint64(i), true
}

// pack finds the pack of a position below Len.
func (o *layoutOrder) pack(pos uint64) int {
	return sort.Search(len(o.packs), func(i int) bool { return o.before[i+1] > pos })
}

// Part ends with a cluster, and not within: each part of it would cost as much as all of it.
func (o *layoutOrder) Part(pos, max uint64) uint64 {
	end := min(pos+max, o.Len())
	if end == 0 || end == o.Len() {
		return end
	}
	i := o.pack(end - 1)
	pages := o.packs[i][end-1-o.before[i]:]
	for _, x := range pages[1:] {
		if !o.m.spots[i].Together(pages[0].spot(), x.spot()) {
			break
		}
		end++
	}
	return end
}

func (o *layoutOrder) GFNs(pos, end uint64, dst []uint64) []uint64 {
	for end = min(end, o.Len()); pos < end; {
		i := o.pack(pos)
		n := min(end, o.before[i+1]) - pos
		for _, x := range o.packs[i][pos-o.before[i]:][:n] {
			dst = append(dst, x.gfn())
		}
		pos += n
	}
	return dst
}

func (o *layoutOrder) Read(ctx context.Context, pos, end uint64, p *Piece) error {
	p.reset(0)
	if err := ctx.Err(); err != nil {
		return err
	}
	p.GFNs = o.GFNs(pos, end, p.GFNs)
	return o.m.readPiece(p)
}

// readPiece reads the pages that p names, from the blocks, as many as can be read there.
func (m *Image) readPiece(p *Piece) error {
	gfns := p.GFNs
	p.Pages = p.reset(len(gfns))
	p.GFNs = gfns
	err := m.readPages(gfns, p.Pages)
	var lost *PagesError
	switch {
	case errors.As(err, &lost):
		p.drop(lost.GFNs)
	case err != nil:
		p.reset(0)
	}
	return err
}

// A setOrder is the pages of the working set's segment in first-touch order. Its parts are frames.
type setOrder struct {
	feed   *workingSetFeed
	frames []uint64 // positions before each frame, and of all
	runs   []setRun // by gfn
}

// setRun is a run of the working set, and the position of its first page.
type setRun struct {
	Run
	pos uint64
}

func newSetOrder(feed *workingSetFeed) *setOrder {
	o := &setOrder{feed: feed, frames: []uint64{0}}
	for i, f := range o.feed.frames {
		o.frames = append(o.frames, o.frames[i]+uint64(f.pages))
	}
	pos := uint64(0)
	for _, r := range feed.m.root.setRuns {
		if pos >= o.Len() {
			break
		}
		o.runs = append(o.runs, setRun{r, pos})
		pos += r.Count
	}
	slices.SortFunc(o.runs, func(a, b setRun) int { return cmp.Compare(a.GFN, b.GFN) })
	return o
}

func (o *setOrder) Len() uint64 { return o.frames[len(o.frames)-1] }

func (o *setOrder) Position(gfn uint64) (uint64, bool) {
	i := sort.Search(len(o.runs), func(i int) bool { return o.runs[i].GFN > gfn }) - 1
	if i < 0 || gfn-o.runs[i].GFN >= o.runs[i].Count {
		return 0, false
	}
	pos := o.runs[i].pos + gfn - o.runs[i].GFN
	return pos, pos < o.Len()
}

// frame finds the frame of a position below Len.
func (o *setOrder) frame(pos uint64) int {
	return sort.Search(len(o.frames)-1, func(i int) bool { return o.frames[i+1] > pos })
}

func (o *setOrder) Part(pos, _ uint64) uint64 {
	if pos >= o.Len() {
		return o.Len()
	}
	return o.frames[o.frame(pos)+1]
}

func (o *setOrder) GFNs(pos, end uint64, dst []uint64) []uint64 {
	end = min(end, o.Len())
	if pos >= end {
		return dst
	}
	f := o.feed.frames[o.frame(pos)]
	skip := f.skip + pos - o.frames[o.frame(pos)]
	for _, r := range o.feed.m.root.setRuns[f.run:] {
		for ; skip < r.Count && pos < end; pos++ {
			dst = append(dst, r.GFN+skip)
			skip++
		}
		if pos == end {
			break
		}
		skip -= r.Count
	}
	return dst
}

func (o *setOrder) Read(ctx context.Context, pos, _ uint64, p *Piece) error {
	return ReadPiece(ctx, o.feed, o.frame(pos), p)
}
