package scan

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/thawfs/thaw/wss/pagetable"
)

const (
	// searchChunk is the number of pages that are read at a time.
	searchChunk = 64
	// searchShare is the share of one CPU's time that searching may take. The guest does not stand
	// still for it, but somebody else may need the CPU.
	searchShare = 0.05
)

// search looks for address spaces in the guest's memory while it runs: pages whose upper half is
// that of a space in use. It goes on where it stopped the last time, for so many pages, and after
// the first time for no more than searchShare of the time. What it finds may be torn, stale or a
// copy: sweeps, when the guest is paused, prove it first.
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

// allowance is how many pages may be searched now.
func (t *Tables) allowance(now time.Time) uint64 {
	if t.searched.IsZero() || t.perPage <= 0 {
		return math.MaxUint64
	}
	return uint64(searchShare * float64(now.Sub(t.searched)) / t.perPage)
}

// spent notes how long it took to search so many pages.
func (t *Tables) spent(begin time.Time, pages uint64) {
	t.searched = t.o.Clock.Now()
	if pages > 0 {
		t.perPage = float64(t.searched.Sub(begin)) / float64(pages)
	}
}

// finder looks through memory once.
type finder struct {
	tables *Tables
	halves kernelHalves
	old    bool // what is found may have been there for long
	buf    []byte
}

// look reads those of n frames from gfn on that are present.
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

// candidate keeps a page in mind that looks like an uppermost table.
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

// plausible says whether the lower half may be one: of tables in RAM, for user space.
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

// frames is the number of frames that are RAM.
func (m ram) frames() (n uint64) {
	for _, r := range m.regions {
		n += r.Count
	}
	return n
}

// nth is the frame of a number below frames, and how many follow it in its region, itself included.
func (m ram) nth(n uint64) (gfn, count uint64) {
	for _, r := range m.regions {
		if n < r.Count {
			return r.GFN + n, r.Count - n
		}
		n -= r.Count
	}
	panic("scan: no such frame")
}

// refreshPresence asks a guest that knows it what is present; nil: everything may be.
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
		return fmt.Errorf("presence of %d pages, the image has %d", present.Len(), t.mem.ram.pages)
	}
	t.present = present
	return nil
}
