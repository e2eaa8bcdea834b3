package index

import (
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// Block is a locality block, or a cluster of cold pages: what is read from disk at once and used together.
// Blocks of one open image can be compared.
type Block struct {
	pack  uint32 // position in the page map
	first uint32 // spot of its first page
}

// Piece holds pages: Pages[i*4096:(i+1)*4096] belongs to GFNs[i]. It may be used again and again.
type Piece struct {
	GFNs  []uint64
	Pages []byte

	buf []byte

	// What was fetched and not yet decoded: a frame, or slots and the pages in them.
	frame pack.Frame
	span  pack.Span
	from  *pack.Span // span, or one that others read as well
	slots []spotGFN
	near  []spotGFN // memory for the pages of a block, or those of a piece that are good
	bad   pack.BadSlots
	index int   // of the piece in its feed
	ready bool  // all was done when it was fetched
	err   error // its result
}

// reset empties the piece and gives its page buffer with room for n pages.
func (p *Piece) reset(n int) []byte {
	p.GFNs = p.GFNs[:0]
	if cap(p.buf) < n*PageSize {
		p.buf = make([]byte, n*PageSize)
	}
	p.buf = p.buf[:n*PageSize]
	p.Pages = p.buf[:0]
	return p.buf
}

// Block returns the block that a page lies in; false for a zero page.
func (m *Image) Block(gfn uint64) (Block, bool) {
	position, spot, ok := m.spot(gfn)
	if !ok {
		return Block{}, false
	}
	g, ok := m.spots[position].GroupOf(spot)
	if !ok {
		return Block{}, false
	}
	first, _ := m.spots[position].Group(g)
	return Block{pack: uint32(position), first: first}, true
}

// BlockGFNs appends to dst the pages of this image in a block, in layout order. Pages of which the
// image has more than maxCopies are left out: they are not neighbours of anything. No I/O.
func (m *Image) BlockGFNs(b Block, dst []uint64) []uint64 {
	if int(b.pack) >= len(m.packs) {
		return dst
	}
	g, ok := m.spots[b.pack].GroupOf(b.first)
	if !ok {
		return dst
	}
	first, count := m.spots[b.pack].Group(g)
	var room [maxCopies * pack.BlockPages]spotGFN
	for _, x := range m.reverse().near(int(b.pack), first, first+count, room[:0]) {
		dst = append(dst, x.gfn())
	}
	return dst
}

// ReadBlock reads a block whole: one read, each unit decoded once. It replaces what buf holds, by
// the pages that BlockGFNs names. Pages that cannot be read are left out, and named by a *PagesError;
// buf still has the others. After any other error it has none.
func (m *Image) ReadBlock(b Block, buf *Piece) error {
	buf.reset(0)
	if int(b.pack) >= len(m.packs) {
		return fmt.Errorf("%s: no such block", m.entry.Name)
	}
	p, err := m.acquire(uint64(b.pack))
	if err != nil {
		return m.spanError(err)
	}
	defer p.release()
	g, ok := p.Spots().GroupOf(b.first)
	if !ok {
		return fmt.Errorf("%s: no such block", m.entry.Name)
	}
	first, count := p.Spots().Group(g)
	buf.near = m.reverse().near(int(b.pack), first, first+count, buf.near[:0])
	return m.fill(buf, buf.near, func(first uint32, dst []byte, bad *pack.BadSlots) {
		m.s.blocks.readSpots(p.Reader, first, dst, bad)
	})
}

// fill fills a piece with pages that lie close together in a pack, in the order of their spots. read
// reads consecutive spots. What cannot be read is left out and named by the error.
func (m *Image) fill(p *Piece, pages []spotGFN,
	read func(first uint32, dst []byte, bad *pack.BadSlots)) error {
	if len(pages) == 0 {
		p.reset(0)
		return nil
	}
	first, span := extent(pages)
	// Pages of several gfns are spread out behind what was read; so there is room for both.
	room := p.reset(max(span, len(pages)))
	read(first, room[:span*PageSize], &p.bad)
	var err error
	if len(p.bad.Slots()) > 0 {
		p.near, err = m.sift(pages, &p.bad, p.near[:0])
		pages = p.near
	}
	spread(room, first, pages)
	for _, x := range pages {
		p.GFNs = append(p.GFNs, x.gfn())
	}
	p.Pages = room[:len(pages)*PageSize]
	return err
}

// sift appends to good those pages that are not bad, and names the others. good may be the beginning
// of pages.
func (m *Image) sift(pages []spotGFN, bad *pack.BadSlots, good []spotGFN) ([]spotGFN, error) {
	lost := &PagesError{Name: m.entry.Name}
	for _, x := range pages {
		err := bad.Err(x.spot())
		if err == nil {
			good = append(good, x)
			continue
		}
		if len(lost.GFNs) == 0 || x.gfn() < slices.Min(lost.GFNs) {
			lost.Err = err
		}
		lost.GFNs = append(lost.GFNs, x.gfn())
	}
	if len(lost.GFNs) == 0 {
		return good, nil // others between those of the image
	}
	slices.Sort(lost.GFNs)
	return good, lost
}

// loseAll names pages of which none could be read.
func (m *Image) loseAll(pages []spotGFN, err error) *PagesError {
	lost := &PagesError{Name: m.entry.Name, Err: err}
	for _, x := range pages {
		lost.GFNs = append(lost.GFNs, x.gfn())
	}
	slices.Sort(lost.GFNs)
	return lost
}

// extent returns the first spot of pages, and how many spots there are from it to the last.
func extent(pages []spotGFN) (first uint32, span int) {
	first = pages[0].spot()
	return first, int(pages[len(pages)-1].spot()-first) + 1
}

// spread moves the page at each spot, which lies at spot - first, to the position of each of its gfns.
// Pages that move down are moved first to last, those that move up last to first, so that nothing is
// overwritten that is needed still.
func spread(room []byte, first uint32, pages []spotGFN) {
	from := func(i int) int { return int(pages[i].spot() - first) }
	move := func(i int) {
		if f := from(i); f != i {
			copy(room[i*PageSize:(i+1)*PageSize], room[f*PageSize:(f+1)*PageSize])
		}
	}
	for i := 0; i < len(pages); {
		// from(i)-i grows by gaps and shrinks by repetitions: take the longest stretch of one sign.
		up := from(i) < i
		j := i + 1
		for j < len(pages) && (from(j) < j) == up {
			j++
		}
		if up {
			for k := j - 1; k >= i; k-- {
				move(k)
			}
		} else {
			for k := i; k < j; k++ {
				move(k)
			}
		}
		i = j
	}
}
