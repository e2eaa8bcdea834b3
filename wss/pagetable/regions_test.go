package pagetable

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/wss"
)

// TestRegionsRandom: pages and frames are found as by a look at every region.
func TestRegionsRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	for range 50 {
		var list []Region
		gpa, off := uint64(0), uint64(0)
		for range rnd.IntN(20) {
			n := rnd.Uint64N(5)
			gpa += rnd.Uint64N(3)
			list = append(list, Region{gpa * PageSize, n * PageSize, off * PageSize})
			gpa, off = gpa+n, off+n+rnd.Uint64N(2)
		}
		rnd.Shuffle(len(list), func(i, j int) { // where they lie in the image says nothing of the address
			if list[i].Bytes == list[j].Bytes {
				list[i].Offset, list[j].Offset = list[j].Offset, list[i].Offset
			}
		})
		s, err := NewSpace(nil, off+10, list)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			list = []Region{{0, (off + 10) * PageSize, 0}}
		}
		for n := range gpa + off + 20 {
			page, frame := uint64(none), uint64(none)
			for _, x := range list {
				if n >= x.GPA/PageSize && n < (x.GPA+x.Bytes)/PageSize {
					page = x.Offset/PageSize + n - x.GPA/PageSize
				}
				if n >= x.Offset/PageSize && n < (x.Offset+x.Bytes)/PageSize {
					frame = x.GPA/PageSize + n - x.Offset/PageSize
				}
			}
			if got, ok := s.page(n); ok != (page != none) || ok && got != page {
				t.Errorf("%v: frame %d is page %d, %v", list, n, got, ok)
			}
			if got, ok := s.frame(n); ok != (frame != none) || ok && got != frame {
				t.Errorf("%v: page %d is frame %d, %v", list, n, got, ok)
			}
		}
	}
}

const none = ^uint64(0)

// pointers is an image in which every entry of every page points to a frame far behind.
type pointers struct{ frame uint64 }

func (p pointers) ReadAt(b []byte, _ int64) (int, error) {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], p.frame<<PageShift|Present|Writable)
	}
	return len(b), nil
}

// TestManyRegions: a dump of a million regions, all whose pages look like tables, does not take for ever.
// If the regions are looked at one by one, these few pages take longer than a test may.
func TestManyRegions(t *testing.T) {
	const pages = 1 << 20
	list := make([]Region, pages)
	for i := range list {
		list[i] = Region{uint64(2*i) * PageSize, PageSize, uint64(i) * PageSize}
	}
	s, err := NewSpace(pointers{2 * (pages - 1)}, pages, list)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context(), []Extent{{0, 1024}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Order(t.Context(), []Root{{0, 4}}); err != nil {
		t.Fatal(err)
	}
}

// scattered is an image of pages that are all tables, whose entries point to pages here and there.
type scattered struct{ pages uint64 }

func (p scattered) ReadAt(b []byte, off int64) (int, error) {
	for i := 0; i < len(b); i += 8 {
		at := uint64(off) + uint64(i)
		frame := at * 0x9e3779b97f4a7c15 >> 20 % p.pages
		binary.LittleEndian.PutUint64(b[i:], frame<<PageShift|Present|Writable)
	}
	return len(b), nil
}

// TestManyMappings: what is listed of a guest that maps all of its memory again and again is bounded.
func TestManyMappings(t *testing.T) {
	const pages = 1 << 14
	s, err := NewSpace(scattered{pages}, pages, nil)
	if err != nil {
		t.Fatal(err)
	}
	lower, upper, err := s.halves(t.Context(), []Root{{0, 4}, {PageSize, 4}})
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, h := range append(lower, upper...) {
		listed += len(h.all)
	}
	if most := maxMappings(pages); listed < pages || uint64(listed) > most {
		t.Errorf("%d mappings are listed of %d pages, want at most %d", listed, pages, most)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := s.newMapper()
	n := 0
	err = w.root(ctx, Root{0, 4}, Lower, func(m Mapping) {
		if m.Table {
			cancel()
			n++
		}
	})
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%d tables were walked after the end of the context: %v", n, err)
	}
	o := ordering{got: wss.NewBitmap(pages), much: pages, sense: true}
	if err := o.add(ctx, false, lower...); !errors.Is(err, context.Canceled) || len(o.out) > 0 {
		t.Errorf("%d address spaces after the end of the context: %v", len(o.out), err)
	}
}
