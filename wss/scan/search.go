package scan

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/thawfs/thaw/wss/pagetable"
)

const (
	// searchChunk is the number of pages of one read.
	searchChunk = 64
	// searchShare is the share of one CPU's time that a search may take. The guest is not paused, but
	// others may need the CPU.
	searchShare = 0.05
)

// search looks for address spaces in the guest's memory while it runs: pages with the upper half of a
// space in use. It continues where it stopped the last time, for at most SearchPages pages and, after
// the first time, for at most searchShare of the time. A page that it finds may be half written, stale
// or a copy; sweeps verify it while the guest is paused.
func (t *Tables) search(ctx context.Context) error {
	if err := t.refreshPresence(); err != nil {
		return err
	}
	var halves kernelHalves
	for _, h := range t.halves {
		if h.used > 0 {
			halves = append(halves, h)
		}
	}
	if t.o.SearchPages < 0 || len(halves) == 0 {
		t.complete = false
		return nil
	}
	f := finder{tables: t, halves: halves, old: !t.complete,
		buf: make([]byte, searchChunk*tableBytes)}
	total := t.mem.ram.frames()
	begin := t.o.Clock.Now()
	left := min(uint64(t.o.SearchPages), total, t.allowance(begin))
	t.complete = left == total
	defer t.spent(begin, left)
	for left > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		gfn, n := t.mem.ram.nth(t.cursor)
		n = min(n, left, searchChunk)
		if err := f.look(gfn, n); err != nil {
			return err
		}
		left -= n
		t.counts.Searched += n
		t.cursor = (t.cursor + n) % total
	}
	return nil
}

// allowance returns how many pages may be searched now.
func (t *Tables) allowance(now time.Time) uint64 {
	if t.searched.IsZero() || t.perPage <= 0 {
		return math.MaxUint64
	}
	return uint64(searchShare * float64(now.Sub(t.searched)) / t.perPage)
}

// spent records how long the search of a number of pages took.
func (t *Tables) spent(begin time.Time, pages uint64) {
	t.searched = t.o.Clock.Now()
	if pages > 0 {
		t.perPage = float64(t.searched.Sub(begin)) / float64(pages)
	}
}

// finder searches memory once.
type finder struct {
	tables *Tables
	halves kernelHalves
	old    bool // spaces found may have existed before the last sweep
	buf    []byte
}

// look searches the present ones of n frames from gfn on.
func (f *finder) look(gfn, n uint64) error {
	present := func(i uint64) bool {
		if f.tables.present == nil {
			return true
		}
		page, ok := f.tables.mem.ram.page(gfn + i)
		return ok && f.tables.present.Has(page)
	}
	for i := uint64(0); i < n; {
		if !present(i) {
			i++
			continue
		}
		from := i
		for i < n && present(i) {
			i++
		}
		b := f.buf[:(i-from)*tableBytes]
		if _, err := f.tables.mem.ReadAt(b, int64((gfn+from)<<frameShift)); err != nil {
			return fmt.Errorf("search for page tables at gfn %d: %w", gfn+from, err)
		}
		for k := from; k < i; k++ {
			f.candidate(gfn+k, (*pagetable.Table)(b[(k-from)*tableBytes:]))
		}
	}
	return nil
}

// candidate stores a page that looks like an uppermost table.
func (f *finder) candidate(gfn uint64, table *pagetable.Table) {
	t := f.tables
	if _, known := t.spaces[gfn]; known || len(t.spaces) >= maxSpaces {
		return
	}
	for _, h := range f.halves {
		if h.like(table) && h.matches(table) && t.plausible(table) {
			t.spaces[gfn] = space{mode: t.mode, old: f.old}
			return
		}
	}
}

// plausible says whether the lower half of a table is possible: its entries point to tables in RAM, for
// user space.
func (t *Tables) plausible(table *pagetable.Table) bool {
	for i := range upperHalf {
		entry := table.Entry(i)
		k, gfn, _ := t.mode.Classify(entry, t.mode.Levels)
		if k == pagetable.Absent {
			continue
		}
		if _, ok := t.mem.ram.page(gfn); k != pagetable.Directory || entry&pagetable.User == 0 || !ok {
			return false
		}
	}
	return true
}

// frames returns the number of frames that are RAM.
func (m ram) frames() (n uint64) {
	for _, r := range m.regions {
		n += r.Count
	}
	return n
}

// nth returns RAM frame number n, which must be below frames, and how many frames its region has
// from there on.
func (m ram) nth(n uint64) (gfn, count uint64) {
	for _, r := range m.regions {
		if n < r.Count {
			return r.GFN + n, r.Count - n
		}
		n -= r.Count
	}
	panic("scan: no such frame")
}

// refreshPresence reads which pages are present, if the guest knows that; present is nil otherwise.
func (t *Tables) refreshPresence() error {
	p, ok := t.mem.Guest.(Presence)
	if !ok {
		return nil
	}
	present, err := p.Present()
	if err != nil {
		return fmt.Errorf("ask which pages are present: %w", err)
	}
	if present != nil && present.Len() != t.mem.ram.pages {
		return fmt.Errorf("the guest reports the presence of %d pages, and the image has %d", present.Len(),
			t.mem.ram.pages)
	}
	t.present = present
	return nil
}
