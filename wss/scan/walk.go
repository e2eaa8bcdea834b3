package scan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// TableCounts is what walks through page tables came upon. Fields are only ever added.
type TableCounts struct {
	Tables    uint64 `json:"tables"`     // table pages read
	Cleared   uint64 `json:"cleared"`    // access bits found and cleared, in leaves
	Large     uint64 `json:"large"`      // of them those of 2 MiB pages: each counts for 512 pages
	TooCoarse uint64 `json:"too_coarse"` // of them those of larger pages, which say nothing
	OutOfRAM  uint64 `json:"out_of_ram"` // entries that point to where no RAM is: devices
	Malformed uint64 `json:"malformed"`  // entries with reserved bits, which a CPU cannot use
	Below     uint64 `json:"below"`      // bits in leaves below a directory whose bit was clear
	Pruned    uint64 `json:"pruned"`     // directories whose bit was clear, so nobody looked below
	Truncated uint64 `json:"truncated"`  // tables left out because there were too many
}

// walk is one way through all page tables of a paused guest. It reads the access bits and clears
// them. Every table page is read once, whatever points to it and from how many levels: so there are
// no loops, and what a guest makes of its tables can cost no more than limit pages.
//
// A page that serves as a table at several levels (an entry of the uppermost table that points to
// that table itself, as Windows has it) is read at the first level at which it is met. Nothing is
// lost: its entries have one access bit each, whatever they are used as.
type walk struct {
	guest Guest
	ram   ram
	limit int
	// coarsest is the number of pages that the bit of a large page may stand for.
	coarsest uint64
	// full: look also below directories whose bit is clear.
	full bool

	tables map[uint64]int // level of each table that was read, by its frame
	later  map[uint64]rest
	fine   *wss.Bitmap // pages with a bit of their own
	coarse *wss.Bitmap // pages that share the bit of a large page
	// peek: only count.
	peek bool
	// blind: clear bits but do not tell; they may have been set at any time since the boot.
	blind  bool
	counts TableCounts

	buf [levelPML5 + 1][tableBytes]byte // by level: a table that is being read
}

// scope says what of an uppermost table is meant.
type scope struct {
	// shared: of the upper half only what these have too; nil: all of it.
	shared kernelHalves
	// shallow: of the lower half only the table itself.
	shallow bool
}

// root walks an uppermost table and what is below it.
func (w *walk) root(m mode, gfn uint64, s scope) error {
	return w.table(m, gfn, m.levels, s, false)
}

// table walks a table and what is below it. below: a directory above it has a clear bit.
func (w *walk) table(m mode, gfn uint64, level int, s scope, below bool) error {
	page, ok := w.ram.page(gfn)
	if !ok {
		w.counts.OutOfRAM++
		return nil
	}
	if _, been := w.tables[gfn]; been {
		return nil
	}
	if len(w.tables) >= w.limit {
		w.counts.Truncated++
		return nil
	}
	w.tables[gfn] = level
	w.counts.Tables++
	table := w.buf[level][:]
	if _, err := w.guest.ReadAt(table, int64(gfn<<frameShift)); err != nil {
		return fmt.Errorf("read page table at gfn %d: %w", gfn, err)
	}
	used := false
	for i := range entries {
		entry := entryAt(table, i)
		if s.shared != nil && i >= entries/2 && !s.shared.have(i, entry) {
			continue
		}
		k, target, count := m.classify(entry, level)
		switch k {
		case pagetable.Absent:
			continue
		case pagetable.Malformed:
			w.counts.Malformed++
			continue
		case pagetable.Directory:
			if s.shallow && i < entries/2 {
				break
			}
			if err := w.directory(m, entry, target, level-1, below); err != nil {
				return err
			}
		case pagetable.Leaf:
			w.leaf(entry, target, count, below)
		}
		if entry&pteAccessed != 0 {
			used = true
			setEntry(table, i, entry&^pteAccessed)
		}
	}
	if !used || w.peek {
		return nil
	}
	// The CPU went through this table, so it is a page that was touched itself.
	if !w.blind {
		w.fine.Set(page)
	}
	if _, err := w.guest.WriteAt(table, int64(gfn<<frameShift)); err != nil {
		return fmt.Errorf("clear access bits in page table at gfn %d: %w", gfn, err)
	}
	return nil
}

// directory goes on to the table that an entry points to. A clear bit means that no address below
// was translated through this entry since it was cleared; perhaps through another one, of a space
// that shares the table. So what is below clear bits is looked at last.
func (w *walk) directory(m mode, entry, gfn uint64, level int, below bool) error {
	if entry&pteAccessed != 0 || below {
		return w.table(m, gfn, level, scope{}, below)
	}
	if !w.full {
		w.counts.Pruned++
		return nil
	}
	if _, ok := w.later[gfn]; !ok && len(w.later) < w.limit {
		w.later[gfn] = rest{m, level, w.blind}
	}
	return nil
}

// rest is a table below a directory whose bit is clear.
type rest struct {
	mode  mode
	level int
	blind bool
}

// finish looks at what is below directories whose bits are clear.
func (w *walk) finish() error {
	for _, gfn := range slices.Sorted(maps.Keys(w.later)) {
		r := w.later[gfn]
		w.blind = r.blind
		if err := w.table(r.mode, gfn, r.level, scope{}, true); err != nil {
			return err
		}
	}
	return nil
}

// leaf notes a page that was touched, or the pages that one bit stands for.
func (w *walk) leaf(entry, gfn, count uint64, below bool) {
	if entry&pteAccessed == 0 {
		return
	}
	w.counts.Cleared++
	if below {
		w.counts.Below++
	}
	to := w.fine
	switch {
	case count > w.coarsest:
		w.counts.TooCoarse++
		return
	case count > 1:
		w.counts.Large++
		to = w.coarse
	}
	in := false
	w.ram.pagesOf(gfn, count, func(first, n uint64) {
		in = true
		if !w.blind {
			to.SetRange(first, n)
		}
	})
	if !in {
		w.counts.OutOfRAM++
	}
}

// check is a walk that changes nothing and says whether what is below the root can only be page
// tables: whoever clears bits in what are no tables destroys the guest. It looks wherever a walk
// would, and asks that every entry be well-formed, every table in RAM and of one level, and, where
// there is a kernel half, everything in the other one meant for user space.
type check struct {
	*walk
	seen map[uint64]int // level of each table of this root, by its frame
}

func (w *walk) proves(m mode, gfn uint64, s scope, user bool) (bool, error) {
	c := check{w, map[uint64]int{}}
	end := entries
	if s.shared != nil {
		end /= 2
	}
	return c.table(m, gfn, m.levels, end, user)
}

// table checks the first entries of a table, and what is below. user: they are for user space, but
// for the upper half of the uppermost table.
func (c check) table(m mode, gfn uint64, level, end int, user bool) (bool, error) {
	if known, ok := c.tables[gfn]; ok {
		return known == level, nil
	}
	if known, ok := c.seen[gfn]; ok {
		return known == level, nil
	}
	if _, ok := c.ram.page(gfn); !ok || len(c.seen) >= c.limit {
		return false, nil
	}
	c.seen[gfn] = level
	var table [tableBytes]byte
	if _, err := c.guest.ReadAt(table[:], int64(gfn<<frameShift)); err != nil {
		return false, fmt.Errorf("read page table at gfn %d: %w", gfn, err)
	}
	for i := range end {
		entry := entryAt(table[:], i)
		k, target, _ := m.classify(entry, level)
		user := user && (level < m.levels || i < entries/2)
		switch {
		case k == pagetable.Absent:
			continue
		case k == pagetable.Malformed, user && entry&pteUser == 0,
			k == pagetable.Leaf && !c.plausible(target, user):
			return false, nil
		case k == pagetable.Directory && (c.full || entry&pteAccessed != 0):
			if ok, err := c.table(m, target, level-1, entries, user); !ok || err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// plausible says whether a page table may map this page: one in RAM and, in user space, not the
// first one. Numbers that look like an entry by chance are mostly small, or point to nowhere.
func (c check) plausible(gfn uint64, user bool) bool {
	_, ok := c.ram.page(gfn)
	return !user || ok && gfn != 0
}
