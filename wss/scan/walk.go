package scan

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// TableCounts has counters of walks through page tables. Fields are only ever added.
type TableCounts struct {
	Tables    uint64 `json:"tables"`     // table pages read
	Cleared   uint64 `json:"cleared"`    // access bits found and cleared, in leaves
	Large     uint64 `json:"large"`      // those of 2 MiB pages, each of which counts for 512 pages
	TooCoarse uint64 `json:"too_coarse"` // those of larger pages, which are ignored
	OutOfRAM  uint64 `json:"out_of_ram"` // entries that point outside of RAM: devices
	Malformed uint64 `json:"malformed"`  // entries with reserved bits, which a CPU cannot use
	Below     uint64 `json:"below"`      // bits in leaves below a directory whose bit was clear
	Pruned    uint64 `json:"pruned"`     // directories whose bit was clear, with nothing below them read
	Truncated uint64 `json:"truncated"`  // tables left out because there were too many
}

// walk is one walk through all page tables of a paused guest. It reads and clears the access bits.
// Every table page is read only once, whatever points to it and from how many levels. So there are no
// loops, and the cost is bounded by limit pages, whatever the guest does.
//
// A page that is used as a table at several levels (in Windows an entry of the uppermost table points
// to that table itself) is read at the first level at which it is found. No bit is missed, because each
// entry has only one access bit for all levels.
type walk struct {
	mem   memory
	limit int
	// coarsest is the most pages that one bit may stand for.
	coarsest uint64
	// full: also look below directories whose bit is clear.
	full bool

	tables map[uint64]int // level of each table that was read, by its frame
	later  map[uint64]rest
	fine   *wss.Bitmap // pages with their own bit
	coarse *wss.Bitmap // pages that share the bit of a large page
	// peek: only count, do not clear.
	peek bool
	// blind: clear bits but do not count their pages; they may have been set at any time since the boot.
	blind  bool
	counts TableCounts

	through pagetable.Walk // reads and clears
	proof   pagetable.Walk // only reads, see check
	of      scope
	below   bool                          // a directory above has a clear bit
	used    [pagetable.MaxLevels + 1]bool // by level: a bit was set in the table
}

// scope says which part of an uppermost table to walk.
type scope struct {
	// shared: of the upper half only entries that these have, too; nil: all of it.
	shared kernelHalves
	// shallow: for the lower half only the entries of the table itself.
	shallow bool
	// flat: for both halves.
	flat bool
}

// root walks an uppermost table and the tables below it.
func (w *walk) root(m pagetable.Mode, gfn uint64, of scope) error {
	w.of, w.below = of, false
	return w.from(m, gfn, m.Levels)
}

// from walks a table of a level and the tables below it.
func (w *walk) from(m pagetable.Mode, gfn uint64, level int) error {
	w.through.Memory, w.through.Mode = w.mem, m
	w.through.Enter, w.through.Entry, w.through.Leave = w.enter, w.entry, w.leave
	return w.through.Table(pagetable.Place{Frame: gfn, Level: level})
}

// enter says whether to read a table.
func (w *walk) enter(p pagetable.Place) (bool, error) {
	if _, ok := w.mem.ram.page(p.Frame); !ok {
		w.counts.OutOfRAM++
		return false, nil
	}
	if _, been := w.tables[p.Frame]; been {
		return false, nil
	}
	if len(w.tables) >= w.limit {
		w.counts.Truncated++
		return false, nil
	}
	w.tables[p.Frame] = p.Level
	w.counts.Tables++
	w.used[p.Level] = false
	return true, nil
}

// entry counts an entry and clears its bit.
func (w *walk) entry(t *pagetable.Table, e *pagetable.Entry) (into bool, err error) {
	top := e.Level == w.through.Mode.Levels
	if top && e.Upper() && w.of.shared != nil && !w.of.shared.have(e.Index, e.Raw) {
		return false, nil
	}
	switch e.Kind {
	case pagetable.Malformed:
		w.counts.Malformed++
		return false, nil
	case pagetable.Directory:
		into = (!top || !w.of.flat && (e.Upper() || !w.of.shallow)) && w.directory(e)
	case pagetable.Leaf:
		w.leaf(e)
	}
	if e.Raw&pagetable.Accessed != 0 {
		w.used[e.Level] = true
		t.SetEntry(e.Index, e.Raw&^pagetable.Accessed)
	}
	return into, nil
}

// leave writes back a table whose bits were cleared.
func (w *walk) leave(p pagetable.Place, t *pagetable.Table) error {
	if !w.used[p.Level] || w.peek {
		return nil
	}
	// The CPU has read this table, so it is a touched page itself.
	if page, ok := w.mem.ram.page(p.Frame); ok && !w.blind {
		w.fine.Set(page)
	}
	if _, err := w.mem.WriteAt(t[:], int64(p.Frame<<pagetable.PageShift)); err != nil {
		return fmt.Errorf("clear access bits in page table at gfn %d: %w", p.Frame, err)
	}
	return nil
}

// directory says whether to walk the table that an entry points to. A clear bit means that no address
// below was translated through this entry since it was cleared. But another space that shares the table
// may have used it, so tables below clear bits are walked last.
func (w *walk) directory(e *pagetable.Entry) bool {
	if e.Raw&pagetable.Accessed != 0 || w.below {
		return true
	}
	if !w.full {
		w.counts.Pruned++
		return false
	}
	if _, ok := w.later[e.Frame]; !ok && len(w.later) < w.limit {
		w.later[e.Frame] = rest{w.through.Mode, e.Level - 1, w.blind}
	}
	return false
}

// rest is a table below a directory whose bit is clear.
type rest struct {
	mode  pagetable.Mode
	level int
	blind bool
}

// finish walks the tables below directories whose bits are clear.
func (w *walk) finish() error {
	w.of, w.below = scope{}, true
	for _, gfn := range slices.Sorted(maps.Keys(w.later)) {
		r := w.later[gfn]
		w.blind = r.blind
		if err := w.from(r.mode, gfn, r.level); err != nil {
			return err
		}
	}
	return nil
}

// leaf adds a touched page, or all pages that the bit stands for.
func (w *walk) leaf(e *pagetable.Entry) {
	if e.Raw&pagetable.Accessed == 0 {
		return
	}
	w.counts.Cleared++
	if w.below {
		w.counts.Below++
	}
	to := w.fine
	switch {
	case e.Count > w.coarsest:
		w.counts.TooCoarse++
		return
	case e.Count > 1:
		w.counts.Large++
		to = w.coarse
	}
	in := false
	w.mem.ram.pagesOf(e.Frame, e.Count, func(first, n uint64) {
		in = true
		if !w.blind {
			to.SetRange(first, n)
		}
	})
	if !in {
		w.counts.OutOfRAM++
	}
}

// check is a walk that changes nothing. It verifies that all pages below a root are page tables,
// because clearing bits in other memory would corrupt the guest. It reads the same tables as a walk.
// Every entry must be well-formed, and every table must be in RAM and be used at one level only. If
// there is a kernel half, everything in the other half must be for user space.
type check struct {
	*walk
	mode pagetable.Mode
	half bool           // check only the lower half of the uppermost table
	user bool           // the lower half is for user space
	seen map[uint64]int // level of each table of this root, by its frame
	// kernel: check only the upper half, of it the entries that these have, too.
	kernel kernelHalves
}

// errNoTables ends a check: a page is not a page table.
var errNoTables = errors.New("not a page table")

func (w *walk) proves(m pagetable.Mode, gfn uint64, of scope, user bool) (bool, error) {
	return w.passes(&check{walk: w, mode: m, half: of.shared != nil, user: user}, gfn)
}

// provesKernel verifies the tables below the upper half.
func (w *walk) provesKernel(m pagetable.Mode, gfn uint64, shared kernelHalves) (bool, error) {
	return w.passes(&check{walk: w, mode: m, kernel: shared}, gfn)
}

func (w *walk) passes(c *check, gfn uint64) (bool, error) {
	c.seen = map[uint64]int{}
	w.proof.Memory, w.proof.Mode, w.proof.Enter, w.proof.Entry = w.mem, c.mode, c.enter, c.entry
	err := w.proof.Root(gfn)
	if errors.Is(err, errNoTables) {
		return false, nil
	}
	return err == nil, err
}

// enter says whether to read a table, and fails for one that is used at two levels.
func (c *check) enter(p pagetable.Place) (bool, error) {
	known, ok := c.tables[p.Frame]
	if !ok {
		known, ok = c.seen[p.Frame]
	}
	_, in := c.mem.ram.page(p.Frame)
	switch {
	case ok && known == p.Level:
		return false, nil
	case ok, !in, len(c.seen) >= c.limit:
		return false, errNoTables
	}
	c.seen[p.Frame] = p.Level
	return true, nil
}

func (c *check) entry(_ *pagetable.Table, e *pagetable.Entry) (into bool, err error) {
	top := e.Level == c.mode.Levels
	if c.half && top && e.Upper() {
		return false, nil
	}
	if c.kernel != nil && top && (!e.Upper() || !c.kernel.have(e.Index, e.Raw)) {
		return false, nil
	}
	user := c.user && !e.Upper()
	if e.Kind == pagetable.Malformed || user && e.Raw&pagetable.User == 0 ||
		e.Kind == pagetable.Leaf && !c.plausible(e.Frame, user) {
		return false, errNoTables
	}
	return c.full || e.Raw&pagetable.Accessed != 0, nil
}

// plausible says whether a page table may map this page: it must be in RAM and, for user space, not be
// page 0. Data that looks like an entry by chance is mostly a small number, or points outside of RAM.
func (c *check) plausible(gfn uint64, user bool) bool {
	_, ok := c.mem.ram.page(gfn)
	return !user || ok && gfn != 0
}
