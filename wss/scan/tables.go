package scan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// TableOptions are options of a scan of page tables. The zero value is good for any guest.
type TableOptions struct {
	// Coarsest is the most pages that one access bit may stand for; bits of larger pages are ignored.
	// 0: 512, for pages of 2 MiB; 1: only pages of 4 KiB count.
	Coarsest uint64
	// MaxTables is the most table pages that one sweep reads while the guest is paused. 0: 262,144.
	MaxTables int
	// SearchPages is the most pages of memory that are searched for address spaces before each sweep.
	// 0: 262,144; negative: none.
	SearchPages int
	// Unseen says that the registers of the vCPUs cannot be read. Then Guest.CPUs is not called, and the
	// page tables are found in the memory alone.
	Unseen bool
	// TestTime is how long the self-test of a way to flush waits for bits to be set again. 0: 1 s.
	TestTime time.Duration
	// Clock; nil: the system's.
	Clock Clock
}

const (
	defaultMaxTables   = 1 << 18
	defaultSearchPages = 1 << 18
	defaultTestTime    = time.Second

	// fullEvery: one in this many sweeps also looks below directories whose bit is clear.
	fullEvery = 16
	// maxMisses is how many sweeps in a row may find no watched bit set.
	maxMisses = 3
)

func (o TableOptions) withDefaults() TableOptions {
	if o.Coarsest == 0 {
		o.Coarsest = pagetable.Pages2M
	}
	if o.MaxTables <= 0 {
		o.MaxTables = defaultMaxTables
	}
	if o.SearchPages == 0 {
		o.SearchPages = defaultSearchPages
	}
	if o.TestTime <= 0 {
		o.TestTime = defaultTestTime
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	return o
}

// Tables is the source that reads and clears the access bits in a guest's own page tables. Not safe
// for concurrent use.
type Tables struct {
	mem memory
	o   TableOptions

	flush    *Flush // chosen by the self-test
	watched  []watched
	tested   time.Duration // pauses for tests since the last sweep
	misses   int           // sweeps in a row in which no watched bit was set
	sweeps   int
	distrust bool // too many bits were found below clear directories: look everywhere

	spaces   map[uint64]space // by the frame of the uppermost table
	halves   kernelHalves     // of the spaces that were in use at the last sweep
	mode     pagetable.Mode   // of a vCPU at the last sweep
	cursor   uint64           // where the search continues
	searched time.Time        // when the last search ended
	perPage  float64          // its time for a page in ns
	complete bool             // the last search covered all of memory
	located  *located         // if registers cannot be read
	present  *wss.Bitmap      // pages with content; nil: not known

	counts SpaceCounts
}

// SpaceCounts has counters of the tables and address spaces found by all sweeps.
type SpaceCounts struct {
	TableCounts
	Spaces   int    `json:"spaces"`    // address spaces that are alive, at the last sweep
	InUse    int    `json:"in_use"`    // those of them that vCPUs used
	NoTables int    `json:"no_tables"` // vCPUs that were not in 64-bit mode at the last sweep
	Refused  uint64 `json:"refused"`   // candidates in memory that were not page tables
	Searched uint64 `json:"searched"`  // pages searched for address spaces
}

// NewTables returns a source for a guest. The guest is not accessed before the first sweep.
func NewTables(guest Guest, o TableOptions) (*Tables, error) {
	m, err := newRAM(guest.RAM())
	if err != nil {
		return nil, err
	}
	return &Tables{mem: memory{guest, m}, o: o.withDefaults(), spaces: map[uint64]space{}}, nil
}

// Pages implements Source.
func (t *Tables) Pages() uint64 { return t.mem.ram.pages }

// Counts returns the counters so far.
func (t *Tables) Counts() SpaceCounts { return t.counts }

// Roots returns the frames of the uppermost tables of the address spaces known at the last sweep,
// ascending. complete says that all of memory was searched for them just before it.
func (t *Tables) Roots() (frames []uint64, complete bool) {
	return slices.Sorted(maps.Keys(t.spaces)), t.complete
}

// Sweep implements Source. The first sweep tests which way to flush works. The error is a *NoBitsError
// if none does, or if later the bits of pages that vCPUs execute are no longer set.
func (t *Tables) Sweep(ctx context.Context) (Sweep, error) {
	if t.flush == nil {
		if err := t.begin(ctx); err != nil {
			return Sweep{}, err
		}
	}
	if t.sweeps > 0 { // before the first sweep the self-test has done it
		if err := t.search(ctx); err != nil {
			return Sweep{}, err
		}
	}
	w := t.newWalk(t.sweeps <= 1 || t.sweeps%fullEvery == 0 || t.distrust)
	var back verdict
	paused, err := t.paused(ctx, func() (err error) {
		if back, err = t.look(t.watched); err != nil {
			return err
		}
		return t.clear(w, t.flush)
	})
	if errors.Is(err, ErrNoTables) && t.located != nil { // another kernel, or new entries of this one
		return Sweep{Fine: w.fine, Coarse: w.coarse, Paused: paused + t.tested, Tested: t.tested,
			Refault: t.refault()}, t.begin(ctx)
	}
	if err != nil {
		return Sweep{}, err
	}
	if err := t.judge(ctx, back, w); err != nil {
		return Sweep{}, err
	}
	t.sweeps++
	s := Sweep{Fine: w.fine, Coarse: w.coarse, Paused: paused + t.tested, Tested: t.tested,
		Refaults: w.counts.Cleared, Refault: t.refault()}
	t.tested = 0
	return s, nil
}

// begin finds out how the guest is scanned: where its tables are, if nobody can tell, and which way to
// flush works.
func (t *Tables) begin(ctx context.Context) error {
	if t.o.Unseen {
		if err := t.locate(ctx); err != nil {
			return err
		}
	}
	return t.choose(ctx)
}

// Pending implements Pender. It reads the address spaces that vCPUs have used, while the guest runs.
func (t *Tables) Pending() (uint64, error) {
	w := t.newWalk(true)
	w.peek = true
	for gfn, s := range t.spaces {
		if !s.seen && (t.located == nil || !s.alive) {
			continue
		}
		if err := w.root(s.mode, gfn, scope{}); err != nil {
			return 0, err
		}
	}
	err := w.finish()
	return w.counts.Cleared, err
}

func (t *Tables) newWalk(full bool) *walk {
	return &walk{mem: t.mem, limit: t.o.MaxTables, coarsest: t.o.Coarsest, full: full,
		tables: map[uint64]int{}, later: map[uint64]rest{},
		fine: wss.NewBitmap(t.mem.ram.pages), coarse: wss.NewBitmap(t.mem.ram.pages)}
}

// paused calls f while the guest is paused, and returns how long the pause was.
func (t *Tables) paused(ctx context.Context, f func() error) (time.Duration, error) {
	begin := t.o.Clock.Now()
	if err := t.mem.Pause(ctx); err != nil {
		return 0, fmt.Errorf("pause the guest: %w", err)
	}
	err := f()
	if rerr := t.mem.Resume(); rerr != nil {
		err = errors.Join(err, fmt.Errorf("resume the guest: %w", rerr))
	}
	return t.o.Clock.Now().Sub(begin), err
}

// clear reads and clears all access bits and flushes the vCPUs' translations. The guest is paused.
func (t *Tables) clear(w *walk, flush *Flush) error {
	var cpus []CPU
	if !t.o.Unseen {
		var err error
		if cpus, err = t.mem.CPUs(); err != nil {
			return fmt.Errorf("read the registers of the vCPUs: %w", err)
		}
	}
	if err := t.walkSpaces(w, cpus); err != nil {
		return err
	}
	if err := flush.Do(); err != nil {
		return &flushError{err}
	}
	var err error
	if t.o.Unseen {
		t.watched, err = t.watchRoots()
	} else {
		t.watched, err = t.watch(cpus)
	}
	return err
}

// flushError says that a way to flush returned an error.
type flushError struct{ err error }

func (e *flushError) Error() string { return fmt.Sprintf("flush translations: %v", e.err) }
func (e *flushError) Unwrap() error { return e.err }

// judge checks a sweep: whether watched bits were set, and whether directories can be trusted.
func (t *Tables) judge(ctx context.Context, back verdict, w *walk) error {
	t.counts.add(w.counts)
	if t.present != nil {
		w.coarse = w.coarse.And(t.present)
	}
	w.coarse = w.coarse.AndNot(w.fine)
	// A few bits below clear directories come from the guest itself, which makes new tables with bits
	// set. If there are many, this host's vCPUs do not set the bits of directories, and sweeps that
	// skipped such tables have missed pages.
	if t.sweeps > 0 && w.counts.Below*100 > w.counts.Cleared {
		t.distrust = true
	}
	if t.located != nil && t.located.silent(t.o.Clock.Now(), back, patience*t.o.TestTime) {
		return t.choose(ctx)
	}
	switch back {
	case cameBack:
		t.misses = 0
	case stayedAway:
		if t.misses++; t.misses >= maxMisses {
			t.misses = 0
			return t.choose(ctx)
		}
	}
	return nil
}

func (t *Tables) refault() time.Duration {
	if t.flush.Refault > 0 {
		return t.flush.Refault
	}
	return DefaultRefault
}

func (c *SpaceCounts) add(o TableCounts) {
	c.Tables += o.Tables
	c.Cleared += o.Cleared
	c.Large += o.Large
	c.TooCoarse += o.TooCoarse
	c.OutOfRAM += o.OutOfRAM
	c.Malformed += o.Malformed
	c.Below += o.Below
	c.Pruned += o.Pruned
	c.Truncated += o.Truncated
}

// Way implements Source.
func (t *Tables) Way() string {
	c := t.counts
	parts := []string{fmt.Sprintf("access bits of the guest's page tables, %d levels", t.mode.Levels),
		fmt.Sprintf("%d address spaces (%d of vCPUs)", c.Spaces, c.InUse)}
	if t.o.Unseen {
		parts[1] = fmt.Sprintf("%d address spaces, found in memory", c.Spaces)
	}
	if t.flush != nil {
		parts = append(parts, "flush: "+t.flush.Name)
	}
	if c.Large > 0 {
		parts = append(parts, fmt.Sprintf("%d bits of large pages counted for all their pages", c.Large))
	}
	if c.TooCoarse > 0 {
		parts = append(parts, fmt.Sprintf("%d bits of larger pages left out", c.TooCoarse))
	}
	if c.Truncated > 0 {
		parts = append(parts, fmt.Sprintf("%d tables left out, too many", c.Truncated))
	}
	if t.distrust {
		parts = append(parts, "bits of directories not trusted")
	}
	return strings.Join(parts, ", ")
}
