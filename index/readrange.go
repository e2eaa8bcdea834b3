package index

import (
	"fmt"
	"slices"
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// wanted is a page to be read, and where in the destination it belongs.
type wanted struct {
	place uint64
	at    int
}

// gather is what one reading of scattered pages needs; it is used again and again.
type gather struct {
	want []wanted
	buf  []byte
}

var gathers = sync.Pool{New: func() any { return new(gather) }}

// maxGap is how many slots between wanted ones are read along with them, rather than reading twice:
// decoding a page costs a few microseconds, as a read does.
const maxGap = 1

// maxSpan bounds the slots that are read at once, in pages (1 MiB).
const maxSpan = 256

// ReadRange reads len(dst)/4096 pages from first on. Pages that were stored side by side are read
// at once, and each stored unit among them is decoded once.
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
	g := gathers.Get().(*gather)
	defer gathers.Put(g)
	g.want = g.want[:0]
	for i := range n {
		if place, ok := m.pages.place(first + i); ok {
			g.want = append(g.want, wanted{place, int(i)})
		} else {
			clear(dst[i*PageSize : (i+1)*PageSize])
		}
	}
	return m.gather(g, dst)
}

// readPages reads scattered pages; Pages[i*4096:] is gfns[i]. Zero pages are among them.
func (m *Image) readPages(gfns []uint64, dst []byte) error {
	g := gathers.Get().(*gather)
	defer gathers.Put(g)
	g.want = g.want[:0]
	for i, gfn := range gfns {
		if place, ok := m.pages.place(gfn); ok {
			g.want = append(g.want, wanted{place, i})
		} else {
			clear(dst[i*PageSize : (i+1)*PageSize])
		}
	}
	return m.gather(g, dst)
}

// gather reads g.want into dst.
func (m *Image) gather(g *gather, dst []byte) error {
	slices.SortFunc(g.want, func(a, b wanted) int {
		if a.place != b.place {
			if a.place < b.place {
				return -1
			}
			return 1
		}
		return a.at - b.at
	})
	for i := 0; i < len(g.want); {
		j := i + 1
		for j < len(g.want) && g.want[j].place-g.want[j-1].place <= maxGap+1 &&
			g.want[j].place-g.want[i].place < maxSpan && g.want[j].place>>24 == g.want[i].place>>24 {
			j++
		}
		if err := m.span(g, g.want[i:j], dst); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// span reads pages that lie close together in one pack.
func (m *Image) span(g *gather, want []wanted, dst []byte) error {
	p, err := m.acquire(want[0].place >> 24)
	if err != nil {
		return err
	}
	defer p.release()
	first := uint32(want[0].place & (pack.MaxSlots - 1))
	n := int(want[len(want)-1].place-want[0].place) + 1
	// The usual case needs no copying: slots and pages ascend together.
	if n == len(want) && want[n-1].at-want[0].at == n-1 && ascending(want) {
		return m.spanError(m.s.blocks.readSlots(p.Reader, first, dst[want[0].at*PageSize:][:n*PageSize]))
	}
	if cap(g.buf) < n*PageSize {
		g.buf = make([]byte, maxSpan*PageSize)
	}
	buf := g.buf[:n*PageSize]
	if err := m.s.blocks.readSlots(p.Reader, first, buf); err != nil {
		return m.spanError(err)
	}
	for _, w := range want {
		copy(dst[w.at*PageSize:][:PageSize], buf[(w.place-want[0].place)*PageSize:])
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
