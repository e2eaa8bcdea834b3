package pagetable

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
)

// Extent is a run of Count pages of the image, beginning with Page.
type Extent struct{ Page, Count uint64 }

// Bounds of a search, for images with data that looks like tables.
const (
	maxCandidates = 1 << 16 // the most pages that look like a root
	maxTables     = 1 << 12 // the most tables that are read to verify one candidate
	maxVerified   = 16      // the most candidates of one group that are verified
	maxAllTables  = 1 << 16 // the most tables that are read to verify all
)

// How much of the image is read at once, so that it stays in a core's cache, and how much one goroutine
// searches before the candidates are collected.
const (
	scanBytes  = 256 << 10
	piecePages = 4 << 20 / PageSize
)

// Find searches for roots of address spaces in the given extents of the image, or in all of it if there
// are no extents. If it finds none, that is not an error. Several goroutines read the image at once.
func (s *Space) Find(ctx context.Context, extents []Extent) ([]Root, error) {
	if extents == nil {
		extents = []Extent{{0, s.pages}}
	}
	f := finder{s: s, sorts: map[uint64]*lookalikes{}, seed: maphash.MakeSeed()}
	if err := f.scan(ctx, extents); err != nil {
		return nil, err
	}
	return f.roots()
}

// finder collects candidates.
type finder struct {
	s     *Space
	seed  maphash.Seed
	sorts map[uint64]*lookalikes // by hash of the upper half
	count int
}

// lookalikes are pages that look like roots and have the same upper half.
type lookalikes struct {
	frames []uint64
	upper  int // number of non-zero entries in the upper half
}

// candidate is a page that looks like a root.
type candidate struct {
	frame uint64
	key   uint64 // hash of the upper half
	upper int
}

// scan searches extents: as many pieces at once as there are processors, each round's in their order.
func (f *finder) scan(ctx context.Context, extents []Extent) error {
	workers := make([]searcher, runtime.GOMAXPROCS(0))
	busy := 0
	round := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var wg sync.WaitGroup
		for i := range workers[:busy] {
			wg.Go(func() { workers[i].search(f) })
		}
		wg.Wait()
		for i := range workers[:busy] {
			if err := workers[i].err; err != nil {
				return err
			}
			f.take(workers[i].found)
		}
		busy = 0
		return nil
	}
	for _, x := range extents {
		for x.Count > 0 {
			n := min(x.Count, piecePages)
			workers[busy].piece = Extent{x.Page, n}
			x.Page, x.Count = x.Page+n, x.Count-n
			if busy++; busy < len(workers) {
				continue
			}
			if err := round(); err != nil {
				return err
			}
		}
	}
	return round()
}

// take notes candidates.
func (f *finder) take(found []candidate) {
	for _, c := range found[:min(len(found), maxCandidates-f.count)] {
		if f.sorts[c.key] == nil {
			f.sorts[c.key] = &lookalikes{upper: c.upper}
		}
		f.sorts[c.key].frames = append(f.sorts[c.key].frames, c.frame)
		f.count++
	}
}

// searcher searches one piece after another.
type searcher struct {
	buf   []byte
	piece Extent
	found []candidate
	err   error
}

// A Mapper is an image that can be mapped. Of most pages the search reads only the last entry, which takes
// a quarter of the time that it takes to copy them.
type Mapper interface {
	// Map maps n bytes of the image from off on, both multiples of the page size.
	Map(off int64, n int) (b []byte, unmap func() error, err error)
}

// search finds the candidates of the piece.
func (w *searcher) search(f *finder) {
	w.found = w.found[:0]
	if m, ok := f.s.r.(Mapper); ok && w.searchMapped(f, m) {
		return
	}
	w.found = w.found[:0]
	w.searchRead(f)
}

// searchMapped searches a mapping of the piece; false if there is none, or a page of it cannot be read.
func (w *searcher) searchMapped(f *finder, m Mapper) (ok bool) {
	b, unmap, err := m.Map(int64(w.piece.Page*PageSize), int(w.piece.Count*PageSize))
	if err != nil {
		return false
	}
	defer func() {
		if unmap() != nil {
			ok = false
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			if _, is := fault.(interface{ Addr() uintptr }); !is {
				panic(fault)
			}
			ok = false // the image was cut, or its disk failed: ReadAt has the error
		}
	}()
	for i := range w.piece.Count {
		if c, is := f.candidate(w.piece.Page+i, (*Table)(b[i*PageSize:])); is {
			w.found = append(w.found, c)
		}
	}
	return true
}

// searchRead searches the piece, some pages at a time.
func (w *searcher) searchRead(f *finder) {
	if w.buf == nil {
		w.buf = make([]byte, scanBytes)
	}
	for x := w.piece; x.Count > 0; {
		n := min(x.Count, scanBytes/PageSize)
		b := w.buf[:n*PageSize]
		if got, err := f.s.r.ReadAt(b, int64(x.Page*PageSize)); got < len(b) {
			w.err = fmt.Errorf("search for page tables from page %d on: %w", x.Page, err)
			return
		}
		for i := range n {
			if c, ok := f.candidate(x.Page+i, (*Table)(b[i*PageSize:])); ok {
				w.found = append(w.found, c)
			}
		}
		x.Page, x.Count = x.Page+n, x.Count-n
	}
}

// candidate says whether a page looks like a root.
func (f *finder) candidate(page uint64, t *Table) (candidate, bool) {
	// From the end: the upper half has the kernel's entries, so most pages that are not tables are
	// recognised soon.
	upper := 0
	for i := Entries - 1; i >= UpperHalf; i-- {
		switch e := t.Entry(i); {
		case e == 0:
		case !f.pointer(e):
			return candidate{}, false
		default:
			upper++
		}
	}
	if upper == 0 {
		return candidate{}, false
	}
	for i := range UpperHalf {
		if e := t.Entry(i); e != 0 && !f.pointer(e) {
			return candidate{}, false
		}
	}
	frame, ok := f.s.frame(page)
	if !ok {
		return candidate{}, false
	}
	return candidate{frame, f.upperHalf(t), upper}, true
}

// pointer says whether a non-zero entry can be an entry of a root: it must point to a table in memory.
func (f *finder) pointer(e uint64) bool {
	if k, frame, _ := (Mode{Levels: 4}).Classify(e, 4); k == Directory {
		_, ok := f.s.page(frame)
		return ok
	}
	return false
}

// upperHalf hashes the upper half of a table, without bits that the processor or software may change.
func (f *finder) upperHalf(t *Table) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	var b [8]byte
	for i := UpperHalf; i < Entries; i++ {
		binary.LittleEndian.PutUint64(b[:], t.Entry(i)&^volatileBits)
		h.Write(b[:])
	}
	return h.Sum64()
}

// roots returns the group of candidates that are roots.
func (f *finder) roots() ([]Root, error) {
	all := make([]*lookalikes, 0, len(f.sorts))
	for _, c := range f.sorts {
		all = append(all, c)
	}
	// A large group is the processes of one kernel. Among groups of equal size, one with more entries
	// is more likely to be roots.
	slices.SortFunc(all, func(a, b *lookalikes) int {
		return cmp.Or(cmp.Compare(len(b.frames), len(a.frames)), cmp.Compare(b.upper, a.upper),
			cmp.Compare(a.frames[0], b.frames[0]))
	})
	budget := maxAllTables
	for _, c := range all {
		levels, err := f.levels(c.frames, &budget)
		if err != nil {
			return nil, err
		}
		if levels == 0 {
			continue
		}
		roots := make([]Root, len(c.frames))
		for i, frame := range c.frames {
			roots[i] = Root{frame * PageSize, levels}
		}
		return roots, nil
	}
	return nil, nil
}

// levels says how many levels the tables of some candidates have, if most of them map themselves; 0 if
// not. With the other number of levels a few may map themselves, too, by chance: where that number says
// that a large page is, another one is.
func (f *finder) levels(frames []uint64, budget *int) (levels int, err error) {
	frames = frames[:min(len(frames), maxVerified)]
	most := len(frames) / 2
	for _, n := range [...]int{4, 5} {
		passed := 0
		for _, frame := range frames {
			ok, read, err := f.s.mapsItself(Root{frame * PageSize, n}, min(*budget, maxTables))
			if err != nil {
				return 0, err
			}
			if *budget -= read; ok {
				passed++
			}
		}
		if passed > most {
			levels, most = n, passed
		}
	}
	return levels, nil
}

// mapsItself says whether the upper half of a root maps the root itself, through tables without a
// malformed entry. read is the number of tables that it read, at most budget.
func (s *Space) mapsItself(r Root, budget int) (ok bool, read int, err error) {
	v := verifier{s: s, root: r, left: budget}
	w := Walk{Memory: s, Mode: Mode{Levels: r.Levels}, Enter: v.enter, Read: v.table, Entry: v.entry}
	if err = w.Root(r.GPA / PageSize); errors.Is(err, errEnough) {
		err = nil
	}
	return v.found, budget - v.left, err
}

// errEnough ends a walk early, because its result is known.
var errEnough = errors.New("enough is known")

type verifier struct {
	s     *Space
	root  Root
	left  int // number of tables that may still be read
	found bool
}

func (v *verifier) enter(Place) (bool, error) {
	if v.left == 0 {
		return false, errEnough
	}
	v.left--
	return true, nil
}

// table checks all entries of a table before those below it.
func (v *verifier) table(p Place, t *Table) error {
	if !v.sound(t, p.Level) {
		return errEnough
	}
	from := 0
	if p.Level == v.root.Levels {
		from = UpperHalf
	}
	mode, want := Mode{Levels: v.root.Levels}, v.root.GPA/PageSize
	for i := from; i < Entries; i++ {
		k, to, count := mode.Classify(t.Entry(i), p.Level)
		if k == Leaf && want-to < count { // below to it wraps around
			v.found = true
			return errEnough
		}
	}
	return nil
}

func (v *verifier) entry(_ *Table, e *Entry) (into bool, err error) { return e.Upper(), nil }

// sound says whether all entries of a table are well-formed for its level.
func (v *verifier) sound(t *Table, level int) bool {
	for i := range Entries {
		switch k, frame, _ := (Mode{Levels: v.root.Levels}).Classify(t.Entry(i), level); k {
		case Malformed:
			return false
		case Directory:
			if _, ok := v.s.page(frame); !ok {
				return false
			}
		}
	}
	return true
}
