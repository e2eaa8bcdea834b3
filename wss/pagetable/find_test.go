package pagetable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func sortedRoots(roots []Root) []Root {
	roots = slices.Clone(roots)
	slices.SortFunc(roots, func(a, b Root) int { return cmp.Compare(a.GPA, b.GPA) })
	return roots
}

// TestFind: the roots of all processes are found, and the kernel's own; nothing else that looks
// like one is.
func TestFind(t *testing.T) {
	for _, levels := range []int{4, 5} {
		for _, processes := range []int{0, 1, 7} {
			t.Run(fmt.Sprintf("%d/%d", levels, processes), func(t *testing.T) {
				g := newGuest(t, uint64(processes), 4096, processes, levels)
				want := append([]Root{{1 * PageSize, levels}}, g.roots...) // the first is the kernel's
				g.decoys(levels)
				got, err := g.space().Find(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if d := gocmp.Diff(sortedRoots(want), sortedRoots(got)); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// decoys puts pages into memory that look like roots and are none: several with a kernel of their
// own that maps other pages; those of page table isolation, which have another upper half; tables
// full of pointers; pointers to data.
func (g *guest) decoys(levels int) {
	rnd := rand.New(rand.NewPCG(9, 9))
	data := g.vmalloc[0]
	other := g.root(levels)
	g.mapPage(other, directMap, data, 1, 0)
	for range 12 {
		r := g.root(levels)
		g.set(r.GPA/PageSize, 300, g.get(other.GPA/PageSize, 273))
		g.set(r.GPA/PageSize, 511, other.GPA|Present)
	}
	for _, r := range g.roots {
		iso := g.root(levels)
		for i := range UpperHalf {
			g.set(iso.GPA/PageSize, i, g.get(r.GPA/PageSize, i)&^(1<<63))
		}
		g.set(iso.GPA/PageSize, 509, g.get(other.GPA/PageSize, 273))
	}
	for range 5 {
		r := g.root(levels)
		for i := range Entries {
			g.set(r.GPA/PageSize, i, (1+rnd.Uint64N(g.pages()-1))<<PageShift|0x67)
		}
	}
}

// TestFindNothing: memory without page tables of 64-bit mode.
func TestFindNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	m := newRAM(t, 300)
	for i := range m.b[:200*PageSize] {
		m.b[i] = byte(rnd.Uint32())
	}
	for _, extents := range [][]Extent{nil, {}, {{10, 50}, {250, 50}}} {
		if roots, err := m.space().Find(t.Context(), extents); err != nil || len(roots) > 0 {
			t.Errorf("%v, %v", roots, err)
		}
	}
}

// TestFindIn: only what was asked for is looked at.
func TestFindIn(t *testing.T) {
	g := newGuest(t, 5, 1024, 3, 4)
	page := g.roots[1].GPA / PageSize
	got, err := g.space().Find(t.Context(), []Extent{{page, 1}, {1000, 24}})
	if err != nil || !slices.Equal(got, g.roots[1:2]) {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.space().Find(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSelfMap: a kernel that maps its tables by an entry of the root that points to the root.
func TestSelfMap(t *testing.T) {
	m := newRAM(t, 200)
	a, b := m.root(4), m.root(4)
	m.mapPage(a, 0xffff_f800_0000_0000, 150, 1, 0x63)
	m.set(b.GPA/PageSize, 496, m.get(a.GPA/PageSize, 496))
	m.mapPage(a, 0x1000, 151, 1, 0)
	m.set(a.GPA/PageSize, 493, a.GPA|0x63)
	m.set(b.GPA/PageSize, 493, b.GPA|0x63)
	got, err := m.space().Find(t.Context(), nil)
	// The upper halves differ in that entry, so only one sort, of one root, is taken.
	if err != nil || len(got) != 1 || got[0] != a && got[0] != b {
		t.Errorf("%v, %v", got, err)
	}
}

// TestOrder: each process's pages in the order of its addresses, then the kernel's that are not
// merely in the map of everything.
func TestOrder(t *testing.T) {
	for _, levels := range []int{4, 5} {
		g := newGuest(t, 6, 4096, 3, levels)
		s := g.space()
		spaces, err := s.Order(t.Context(), g.roots)
		if err != nil {
			t.Fatal(err)
		}
		if len(spaces) != 4 {
			t.Fatalf("%d address spaces", len(spaces))
		}
		for i, want := range append(g.process, g.vmalloc) {
			got := listed(spaces[i].Runs)
			tables := len(got)
			got = slices.DeleteFunc(got, func(p uint64) bool { return p < g.next })
			tables -= len(got)
			if i == 3 { // the kernel's text follows, 2 MiB of which others have a part
				got = got[:min(len(got), len(want))]
			}
			if d := gocmp.Diff(want, got); d != "" || spaces[i].Kernel != (i == 3) {
				t.Errorf("%d levels, space %d: %s", levels, i, d)
			}
			if tables < 3 {
				t.Errorf("space %d has %d tables", i, tables)
			}
		}
	}
}

// TestOrderIdentity: a guest whose kernel maps all of memory and nothing else is ordered by that.
func TestOrderIdentity(t *testing.T) {
	m := newRAM(t, 1024)
	r := m.root(4)
	for f := range uint64(1024) {
		m.mapPage(r, directMap+f*PageSize, f, 1, 0)
	}
	spaces, err := m.space().Order(t.Context(), []Root{r, r})
	if err != nil || len(spaces) != 1 || len(listed(spaces[0].Runs)) != 1024 {
		t.Errorf("%v, %v", spaces, err)
	}
}

func TestInfo(t *testing.T) {
	info, err := ParseInfo([]byte(`{"format": "x", "paging": {"levels": 4, "roots": [4096, 4219, 8192],
		"regions": [{"gpa": 0, "bytes": 4096, "offset": 0}], "later": 1}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Root{{4096, 4}, {8192, 4}}
	if d := gocmp.Diff(want, info.Known()); d != "" || len(info.Regions) != 1 || info.Complete {
		t.Errorf("%s %+v", d, info)
	}
	all := With(want, []Root{{8192, 4}, {8192, 5}, {4096, 4}})
	if d := gocmp.Diff([]Root{{4096, 4}, {8192, 4}, {8192, 5}}, all); d != "" {
		t.Error(d)
	}
	for _, none := range []string{"", "{}", `{"paging": null}`} {
		if info, err := ParseInfo([]byte(none)); err != nil || info.Known() != nil {
			t.Errorf("%q: %+v, %v", none, info, err)
		}
	}
	for _, bad := range []string{"{", `{"paging": true}`, `{"paging": {"roots": [1]}}`,
		`{"paging": {"roots": [-1], "levels": 4}}`, `{"paging": {"roots": [1], "levels": 3}}`} {
		if _, err := ParseInfo([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
