package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// uniqueImage has no zero page and no page twice: every page takes a slot.
func uniqueImage(pages int) testImage {
	m := make(testImage, pages)
	for i := range m {
		m[i] = uint64(i + 1)
	}
	return m
}

// stored returns the pages of an image in the order of their slots, block by block.
func stored(m *Image) (blocks [][]uint64) {
	for i, pages := range m.reverse().packs {
		for j := 0; j < len(pages); {
			b, _ := m.Block(pages[j].gfn())
			gfns := m.BlockGFNs(b, nil)
			if int(b.pack) != i || len(gfns) == 0 {
				panic("block of another pack")
			}
			blocks = append(blocks, gfns)
			j += len(gfns)
		}
	}
	return blocks
}

// TestLayoutByHand: groups in their order, each from the first page of a block on; a page lies
// where it is first named; the rest follows by number.
func TestLayoutByHand(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "store"), nil)
	src := writeSource(t, uniqueImage(60).bytes(), nil)
	order := []Group{
		{GroupUsed, []Run{{50, 1}, {3, 2}, {40, 3}}},
		{GroupUsed, []Run{{4, 1}, {20, 1}}}, // 4 has its place
		{GroupUsed, []Run{{50, 1}}},         // nothing is left of it
		{GroupVirtual, []Run{{59, 1}, {20, 20}}},
	}
	c, st, err := s.Import(t.Context(), src, ImportOptions{Name: "a", Order: order})
	if err != nil {
		t.Fatal(err)
	}
	if c.Layout != LayoutTrace || c.WorkingSet != nil || c.SegmentBytes != 0 || st.NewPages != 60 {
		t.Errorf("%+v, %+v", c, st)
	}
	m := openImage(t, s, "a")
	defer m.Close()
	upto := func(gfns []uint64, first, last uint64) []uint64 {
		for ; first <= last; first++ {
			gfns = append(gfns, first)
		}
		return gfns
	}
	want := [][]uint64{
		{50, 3, 4, 40, 41, 42}, {20},
		upto([]uint64{59}, 21, 35), upto(nil, 36, 39),
		upto([]uint64{0, 1, 2}, 5, 17),
		append(upto([]uint64{18, 19}, 43, 49), upto(nil, 51, 57)...), {58},
	}
	if d := cmp.Diff(want, stored(m)); d != "" {
		t.Error(d)
	}
}

func TestLayoutKinds(t *testing.T) {
	used, virtual := Group{GroupUsed, []Run{{0, 1}}}, Group{GroupVirtual, []Run{{1, 1}}}
	for _, c := range []struct {
		order []Group
		want  Layout
	}{
		{nil, LayoutPhysical}, {[]Group{{Kind: GroupUsed}}, LayoutPhysical},
		{[]Group{virtual}, LayoutVirtual}, {[]Group{virtual, used}, LayoutTrace},
		{[]Group{virtual, {GroupUsed, []Run{{1, 1}}}}, LayoutVirtual},
	} {
		order, err := cleanGroups(c.order, 2, new(gfnSet))
		if err != nil {
			t.Fatal(err)
		}
		if got := layoutOf(order); got != c.want || got.Local() != (got != LayoutPhysical) {
			t.Errorf("%v: %s, want %s", c.order, got, c.want)
		}
	}
	for _, bad := range [][]Group{
		{{"", []Run{{0, 1}}}}, {{GroupUsed, []Run{{0, 3}}}}, {{GroupUsed, []Run{{0, 0}}}},
		{{GroupVirtual, []Run{{1 << 63, 1 << 63}}}},
	} {
		if _, err := cleanGroups(bad, 2, new(gfnSet)); err == nil {
			t.Errorf("%v is a layout", bad)
		}
	}
}

// TestLayoutRandom holds random groups over random images against what layouts promise, whatever
// else the store has already.
func TestLayoutRandom(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "store"), nil)
	s.limits.packPages = 100
	r := rand.New(rand.NewPCG(8, 8))
	for i := range 12 {
		img := randomImage(r, 1+r.IntN(1500))
		if i%3 == 0 {
			img = uniqueImage(len(img))
			for j := range img {
				img[j] += uint64(i) << 32
			}
		}
		var order []Group
		part := map[uint64]int{} // which group a page belongs to
		for range r.IntN(5) {
			g := Group{Kind: GroupVirtual}
			for range r.IntN(60) {
				run := Run{GFN: r.Uint64N(uint64(len(img)))}
				run.Count = 1 + r.Uint64N(min(uint64(len(img))-run.GFN, 8))
				g.Runs = append(g.Runs, run)
			}
			order = append(order, g)
			eachPage(g.Runs, func(gfn uint64) {
				if _, ok := part[gfn]; !ok {
					part[gfn] = len(order)
				}
			})
		}
		name := fmt.Sprint("c", i)
		b := img.bytes()
		src := writeSource(t, b, nil)
		c, st, err := s.Import(t.Context(), src, ImportOptions{Name: name, Order: order})
		if err != nil {
			t.Fatal(err)
		}
		if st.NewPages+st.DupPages != c.DataPages || c.DataPages+c.ZeroPages != uint64(len(img)) {
			t.Errorf("%s: %+v, %+v", name, c, st)
		}
		m := openImage(t, s, name)
		sameImage(t, m, b)
		if i%3 == 0 {
			for _, block := range stored(m) {
				for _, gfn := range block {
					if part[gfn] != part[block[0]] {
						t.Fatalf("%s: pages %d and %d of two groups in one block", name, block[0], gfn)
					}
				}
			}
		}
		m.Close()
	}
}

// chained is an image in two layers: pages of the upper, and beneath them those of the lower.
type chained struct {
	lower, upper []byte
	has          map[uint64]bool
	extents      []Run
	broken       error
}

func (c *chained) Size() int64             { return int64(len(c.lower)) }
func (c *chained) Extents() ([]Run, error) { return c.extents, nil }

func (c *chained) ReadAt(p []byte, off int64) (int, error) {
	if off%PageSize != 0 || len(p)%PageSize != 0 || off+int64(len(p)) > c.Size() {
		return 0, fmt.Errorf("%d bytes at %d", len(p), off)
	}
	for i := int64(0); i < int64(len(p)); i += PageSize {
		if c.broken != nil && off+i == 5*PageSize {
			return int(i), c.broken
		}
		from := c.lower
		if c.has[uint64(off+i)/PageSize] {
			from = c.upper
		}
		copy(p[i:i+PageSize], from[off+i:])
	}
	if off+int64(len(p)) == c.Size() {
		return len(p), io.EOF // as io.ReaderAt may
	}
	return len(p), nil
}

// TestImportThroughAnInterface: only the extents of a Memory are read and imported.
func TestImportThroughAnInterface(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "store"), nil)
	r := rand.New(rand.NewPCG(9, 9))
	base := randomImage(r, 700)
	next := base.change(r, 20)
	c := &chained{lower: base.bytes(), upper: next.bytes(), has: map[uint64]bool{}}
	for i := range base {
		if base[i] != next[i] {
			c.has[uint64(i)] = true
		}
		if n := len(c.extents); next[i] == 0 {
			continue
		} else if n > 0 && c.extents[n-1].GFN+c.extents[n-1].Count == uint64(i) {
			c.extents[n-1].Count++
		} else {
			c.extents = append(c.extents, Run{uint64(i), 1})
		}
	}
	src := Source{Memory: "a chain", Image: c, Info: []byte(`{"vmm":"x"}`)}
	set := []Run{{600, 30}, {0, 10}}
	_, st, err := s.Import(t.Context(), src, ImportOptions{Name: "a", WorkingSet: set})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(countPages(c.extents)) * PageSize; st.ReadBytes != want {
		t.Errorf("%d bytes were read, %d have data", st.ReadBytes, want)
	}
	m := openImage(t, s, "a")
	defer m.Close()
	sameImage(t, m, next.bytes())

	c.broken = errors.New("a layer is gone")
	if _, _, err := s.Import(t.Context(), src, ImportOptions{Name: "b"}); !errors.Is(err, c.broken) {
		t.Errorf("a memory that cannot be read: %v", err)
	}
	c.broken = nil
	for what, bad := range map[string]Source{
		"no whole pages": {Image: &chained{lower: make([]byte, 100)}},
		"nothing":        {Image: &chained{}},
		"descending":     {Image: &chained{lower: c.lower, extents: []Run{{5, 1}, {3, 1}}}},
		"overlapping":    {Image: &chained{lower: c.lower, extents: []Run{{3, 2}, {4, 1}}}},
		"behind the end": {Image: &chained{lower: c.lower, extents: []Run{{699, 2}}}},
		"an empty run":   {Image: &chained{lower: c.lower, extents: []Run{{3, 0}}}},
	} {
		_, _, err := s.Import(context.Background(), bad, ImportOptions{Name: "b"})
		var image *ImageError
		if !errors.As(err, &image) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if l, err := s.List(t.Context()); err != nil || len(l) != 1 || !bytes.Equal(l[0].Guest, src.Info) {
		t.Errorf("%v, %v", l, err)
	}
}
