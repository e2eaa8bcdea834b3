package pagetable

import (
	"cmp"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// walked returns what a root maps, without the tables.
func walked(t testing.TB, s *Space, r Root) (all []Mapping) {
	t.Helper()
	w := s.newMapper()
	for _, half := range []Half{Lower, Upper} {
		err := w.root(t.Context(), r, half, func(m Mapping) {
			if !m.Table {
				all = append(all, m)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestWalkByHand has one of everything.
func TestWalkByHand(t *testing.T) {
	for _, levels := range []int{4, 5} {
		m := newRAM(t, 2048)
		r := m.root(levels)
		high := ^uint64(0) << (PageShift + 9*levels)
		top := high | 1<<(PageShift+9*levels-1)
		m.mapPage(r, 0x7000, 1000, 1, 1<<63|0x67)           // no-execute, accessed, dirty
		m.mapPage(r, 0x8000, 1001, 1, 0x7ff<<52|0xe00|0x98) // software bits, key, PAT, cache
		m.mapPage(r, 0x20_0000, 512, 2, 1<<12|0x67)         // 2 MiB, PAT
		m.mapPage(r, 1<<30, 0, 3, 0)                        // 1 GiB, of which there are 8 MiB
		m.mapPage(r, top, 7, 1, 0)
		m.mapPage(r, ^uint64(0xfff), 8, 1, 0)
		m.mapPage(r, 0xa000, 5000, 1, 0) // not in memory
		m.set(m.get(r.GPA/PageSize, 0)&AddressMask>>PageShift, 9, 1<<PageShift|Large|Present|1<<20)
		want := []Mapping{
			{Virtual: 0x7000, Page: 1000, Count: 1}, {Virtual: 0x8000, Page: 1001, Count: 1},
			{Virtual: 0x20_0000, Page: 512, Count: 512}, {Virtual: 1 << 30, Page: 0, Count: 2048},
			{Virtual: top, Page: 7, Count: 1}, {Virtual: ^uint64(0xfff), Page: 8, Count: 1},
		}
		if d := gocmp.Diff(want, walked(t, m.space(), r)); d != "" {
			t.Errorf("%d levels: %s", levels, d)
		}
	}
}

// TestWalkTables: a table comes before what it maps, and once, though it is used by two roots.
func TestWalkTables(t *testing.T) {
	m := newRAM(t, 100)
	a, b := m.root(4), m.root(4)
	m.mapPage(a, 0x1000, 90, 1, 0)
	m.mapPage(a, 1<<39, 91, 1, 0)
	m.mapPage(b, 0x1000, 92, 1, 0)
	m.set(b.GPA/PageSize, 1, m.get(a.GPA/PageSize, 1)) // shared
	w := m.space().newMapper()
	var pages []uint64
	var tables []bool
	for _, r := range []Root{a, b} {
		if err := w.root(t.Context(), r, Lower, func(x Mapping) {
			pages, tables = append(pages, x.Page), append(tables, x.Table)
		}); err != nil {
			t.Fatal(err)
		}
	}
	want := []bool{true, true, true, false, true, true, true, false, true, true, true, false}
	if !slices.Equal(tables, want) || pages[3] != 90 || pages[7] != 91 || pages[11] != 92 {
		t.Errorf("pages %v, tables %v", pages, tables)
	}
}

// TestWalkRandom compares a walk with the mappings that were made.
func TestWalkRandom(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		levels := 4 + int(seed%2)
		m := newRAM(t, 4096)
		r := m.root(levels)
		model := map[uint64]Mapping{}
		for range 100 {
			v := rnd.Uint64() % (1 << (PageShift + 9*levels)) &^ (1<<21 - 1)
			if rnd.IntN(2) == 0 { // near another
				for x := range model {
					v = x &^ (1<<21 - 1)
					break
				}
			}
			at := v
			if at>>(PageShift+9*levels-1) != 0 {
				at |= ^uint64(0) << (PageShift + 9*levels)
			}
			taken := false
			for x := range model {
				taken = taken || x>>21 == at>>21
			}
			if !taken && rnd.IntN(4) == 0 {
				f := rnd.Uint64N(8) * Pages2M
				m.mapPage(r, v, f, 2, 0)
				model[at] = Mapping{Virtual: at, Page: f, Count: Pages2M}
			} else if !taken || model[at].Count != Pages2M {
				i := rnd.Uint64N(512) * PageSize
				if x, ok := model[at]; ok && x.Count > 1 {
					continue
				}
				f := rnd.Uint64N(4096)
				m.mapPage(r, v+i, f, 1, 0)
				model[at+i] = Mapping{Virtual: at + i, Page: f, Count: 1}
			}
		}
		var want []Mapping
		for _, x := range model {
			want = append(want, x)
		}
		slices.SortFunc(want, func(a, b Mapping) int { return cmp.Compare(a.Virtual, b.Virtual) })
		if d := gocmp.Diff(want, walked(t, m.space(), r)); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

// TestWalkEndless: tables that point to themselves and to each other, at all levels, are visited
// once a level.
func TestWalkEndless(t *testing.T) {
	m := newRAM(t, 64)
	for f := range uint64(64) {
		for i := range Entries {
			m.set(f, i, (f+uint64(i))%64<<PageShift|Present)
		}
	}
	n := 0
	w := m.space().newMapper()
	for _, half := range []Half{Lower, Upper} {
		if err := w.root(t.Context(), Root{0, 5}, half, func(Mapping) { n++ }); err != nil {
			t.Fatal(err)
		}
	}
	if most := 64 * (4 + 512); n > most {
		t.Errorf("%d mappings of 64 pages", n)
	}
	if roots, err := m.space().Find(t.Context(), nil); err != nil {
		t.Errorf("%v, %v", roots, err)
	}
}

// TestRegions: memory that lies in the image in pieces.
func TestRegions(t *testing.T) {
	m := newRAM(t, 64)
	// Frames 0 to 31 are pages 0 to 31; frames 100 to 131 are pages 32 to 63.
	split := []Region{{100 * PageSize, 32 * PageSize, 32 * PageSize}, {0, 32 * PageSize, 0}}
	r := m.root(4)
	m.mapPage(r, 0x1000, 40, 1, 0) // no memory
	m.mapPage(r, 0x2000, 101, 1, 0)
	m.mapPage(r, 0x3000, 31, 1, 0)
	want := []Mapping{
		{Virtual: 0x2000, Page: 33, Count: 1}, {Virtual: 0x3000, Page: 31, Count: 1},
	}
	if d := gocmp.Diff(want, walked(t, m.space(split...), r)); d != "" {
		t.Error(d)
	}
	for _, bad := range [][]Region{
		{{1, PageSize, 0}}, {{0, 1, 0}}, {{0, PageSize, 1}}, {{0, 65 * PageSize, 0}},
		{{0, PageSize, 64 * PageSize}}, {{0, 1 << 63, 0}}, {{1 << 63, PageSize, 0}},
		{{0, 2 * PageSize, 0}, {PageSize, PageSize, 8 * PageSize}},
	} {
		if _, err := NewSpace(nil, 64, bad); err == nil {
			t.Errorf("%v is memory", bad)
		}
	}
}

// brokenReader cannot read one page.
type brokenReader struct {
	io.ReaderAt
	page int64
}

var errBroken = errors.New("broken")

func (r brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off <= r.page*PageSize && r.page*PageSize < off+int64(len(p)) {
		return 0, errBroken
	}
	return r.ReaderAt.ReadAt(p, off)
}

// TestReadErrors: an image that cannot be read is an error wherever it is noticed.
func TestReadErrors(t *testing.T) {
	g := newGuest(t, 1, 1024, 2, 4)
	s := g.space()
	inner := s.r
	for _, frame := range []uint64{g.roots[1].GPA / PageSize,
		g.get(g.roots[1].GPA/PageSize, 0) & AddressMask >> PageShift} {
		s.r = brokenReader{inner, int64(frame)}
		if _, err := s.Order(t.Context(), g.roots); !errors.Is(err, errBroken) {
			t.Errorf("order: %v", err)
		}
		if _, err := s.Find(t.Context(), nil); !errors.Is(err, errBroken) {
			t.Errorf("find: %v", err)
		}
	}
}

// FuzzTables: whatever memory holds, walks and searches end, and name pages of the image.
func FuzzTables(f *testing.F) {
	g := newGuest(f, 3, 1024, 1, 4)
	f.Add(g.b[:40*PageSize], uint16(g.roots[0].GPA/PageSize), true)
	f.Add([]byte{1}, uint16(0), false)
	f.Fuzz(func(t *testing.T, b []byte, root uint16, five bool) {
		b = append(b, make([]byte, PageSize-len(b)%PageSize)...)
		if len(b) > 64*PageSize {
			b = b[:64*PageSize]
		}
		m := &ram{t: t, b: b}
		s := m.space()
		roots, err := s.Find(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r := Root{uint64(root) * PageSize, 4}
		if five {
			r.Levels = 5
		}
		spaces, err := s.Order(t.Context(), append(roots, r))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		for _, a := range spaces {
			for _, p := range listed(a.Runs) {
				if p >= m.pages() || seen[p] {
					t.Fatalf("page %d of %d", p, m.pages())
				}
				seen[p] = true
			}
		}
	})
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		entry        uint64
		level        int
		k            Kind
		frame, count uint64
	}{
		{0, 1, Absent, 0, 0},
		{0x5000 | Large, 3, Absent, 0, 0},
		{0x5000 | Present, 1, Leaf, 5, 1},
		{0x5000 | Present | Large, 1, Leaf, 5, 1}, // PAT
		{0x5000 | Present, 2, Directory, 5, 1},
		{0x5000 | Present, 5, Directory, 5, 1},
		{0x5000 | Present | Large, 4, Malformed, 0, 0},
		{0x5000 | Present | Large, 5, Malformed, 0, 0},
		{0x60_0000 | Present | Large, 2, Leaf, 0x600, 512},
		{0x60_1000 | Present | Large, 2, Leaf, 0x600, 512}, // PAT
		{0x60_2000 | Present | Large, 2, Malformed, 0, 0},
		{0x8000_0000 | Present | Large, 3, Leaf, 0x80000, 1 << 18},
		{0x8020_0000 | Present | Large, 3, Malformed, 0, 0},
		{1<<63 | 0x7ff<<52 | 0x5000 | Present, 1, Leaf, 5, 1},
		{0x000f_ffff_ffff_f000 | Present, 1, Leaf, 1<<40 - 1, 1},
	} {
		k, frame, count := Mode{}.Classify(c.entry, c.level)
		if k != c.k || k == Leaf && (frame != c.frame || count != c.count) ||
			k == Directory && frame != c.frame {
			t.Errorf("%#x at level %d: %d, frame %#x, %d", c.entry, c.level, k, frame, count)
		}
		if c.entry&(Present|NX) == Present|NX {
			c.k = Malformed
		}
		if k, _, _ := (Mode{Reserved: NX}).Classify(c.entry, c.level); k != c.k {
			t.Errorf("%#x at level %d, NX reserved: %d", c.entry, c.level, k)
		}
	}
}
