package index

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// wanted is a page to be read, and where in the destination it belongs.
type wanted struct {
	place uint64 // position of the pack<<32 | spot
	at    int
}

func (w wanted) spot() uint32 { return uint32(w.place) }

// gather is what one reading of scattered pages needs; it is used again and again.
type gather struct {
	want  []wanted
	buf   []byte
	slots pack.BadSlots
	bad   []int // of the destination: pages that could not be read
	err   error // why the first of them could not
}

var gathers = sync.Pool{New: func() any { return new(gather) }}

// maxGap is how many unwanted pages may lie between wanted ones that are read together: decoding a page
// costs a few microseconds, as a read does.
const maxGap = 1

// maxSpan bounds the spots that are read at once, in pages (1 MiB).
const maxSpan = 256

// ReadRange reads len(dst)/4096 pages from first on. Pages that were stored side by side are read
// at once, and each stored unit among them is decoded once. If some of the pages cannot be read,
// the others are read all the same: the error is a *PagesError, and the pages in it are zeros in dst.
func (m *Image) ReadRange(first uint64, dst []byte) error {
	n := uint64(len(dst)) / PageSize
	if len(dst)%PageSize != 0 {
		return fmt.Errorf("%s: read %d bytes: want whole pages", m.entry.Name, len(dst))
	}
	if first > m.pages.pages || n > m.pages.pages-first {
		return m.pageError(first+n-1, errBeyondEnd)
	}
	if n == 1 {
		return m.ReadPage(first, dst)
	}
	return m.read(int(n), func(i int) uint64 { return first + uint64(i) }, dst)
}

// readPages reads scattered pages; Pages[i*4096:] is gfns[i]. Zero pages are among them. It fails
// like ReadRange.
func (m *Image) readPages(gfns []uint64, dst []byte) error {
	return m.read(len(gfns), func(i int) uint64 { return gfns[i] }, dst)
}

// read reads n pages: dst[i*4096:] is gfn(i).
func (m *Image) read(n int, gfn func(int) uint64, dst []byte) error {
	g := gathers.Get().(*gather)
	defer gathers.Put(g)
	g.want = g.want[:0]
	for i := range n {
		if position, spot, ok := m.spot(gfn(i)); ok {
			g.want = append(g.want, wanted{position<<32 | uint64(spot), i})
		} else {
			clear(dst[i*PageSize : (i+1)*PageSize])
		}
	}
	if err := m.gather(g, dst); err != nil || len(g.bad) == 0 {
		return err
	}
	lost := &PagesError{Name: m.entry.Name, Err: g.err}
	for _, at := range g.bad {
		lost.GFNs = append(lost.GFNs, gfn(at))
	}
	slices.Sort(lost.GFNs)
	return lost
}

// gather reads g.want into dst, and notes in g which pages are bad. An error is about all of them.
func (m *Image) gather(g *gather, dst []byte) error {
	g.bad, g.err = g.bad[:0], nil
	slices.SortFunc(g.want, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.place, b.place), a.at-b.at)
	})
	for i := 0; i < len(g.want); {
		j := i + 1
		for j < len(g.want) && g.want[j].place-g.want[i].place < maxSpan && m.together(g.want[j-1], g.want[j]) {
			j++
		}
		if err := m.span(g, g.want[i:j], dst); err != nil {
			return m.spanError(err)
		}
		i = j
	}
	slices.Sort(g.bad)
	return nil
}

// together says whether two pages, one behind the other, are best read at once.
func (m *Image) together(a, b wanted) bool {
	if a.place>>32 != b.place>>32 {
		return false
	}
	return b.place-a.place <= maxGap+1 || m.spots[a.place>>32].Together(a.spot(), b.spot())
}

// lose notes that a page could not be read.
func (g *gather) lose(w wanted, err error) {
	if len(g.bad) == 0 || w.at < slices.Min(g.bad) {
		g.err = err
	}
	g.bad = append(g.bad, w.at)
}

// span reads pages that lie close together in one pack.
func (m *Image) span(g *gather, want []wanted, dst []byte) error {
	p, err := m.acquire(want[0].place >> 32)
	if isDamage(err) {
		for _, w := range want {
			clear(dst[w.at*PageSize:][:PageSize])
			g.lose(w, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer p.release()
	first := want[0].spot()
	n := int(want[len(want)-1].place-want[0].place) + 1
	// The usual case needs no copying: spots and pages ascend together.
	if n == len(want) && want[n-1].at-want[0].at == n-1 && ascending(want) {
		m.s.blocks.readSpots(p.Reader, first, dst[want[0].at*PageSize:][:n*PageSize], &g.slots)
	} else {
		if cap(g.buf) < n*PageSize {
			g.buf = make([]byte, maxSpan*PageSize)
		}
		buf := g.buf[:n*PageSize]
		m.s.blocks.readSpots(p.Reader, first, buf, &g.slots)
		for _, w := range want {
			copy(dst[w.at*PageSize:][:PageSize], buf[(w.place-want[0].place)*PageSize:])
		}
	}
	if len(g.slots.Slots()) == 0 {
		return nil
	}
	for _, w := range want {
		if err := g.slots.Err(w.spot()); err != nil {
			g.lose(w, err)
		}
	}
	return nil
}

// ascending says whether pages go to consecutive places of the destination.
func ascending(want []wanted) bool {
	for i := 1; i < len(want); i++ {
		if want[i].at != want[i-1].at+1 || want[i].place != want[i-1].place+1 {
			return false
		}
	}
	return true
}

func (m *Image) spanError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", m.entry.Name, err)
}
