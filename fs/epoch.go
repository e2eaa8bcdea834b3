package fs

import (
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/wss"
)

// An epoch is the life of an image from one cold page cache to the next, over its own memory file
// and those of its clones: the stalls, and the read trace that a working set can be made of. Each
// session belongs to one epoch; code that has a session uses the epoch of that session.
type epoch struct {
	pages  uint64
	window time.Duration
	// armed: StartRecord asked for a trace, so nothing is prefetched or pushed until the window is
	// over, whatever the policy.
	armed bool
	// bare: there is no working set that the policy could bring, so the first restore is traced for
	// one, and nothing is pushed in its window either.
	bare bool

	base time.Time
	// started is when the window began (the first open), in nanoseconds since base; 0: not yet.
	started atomic.Int64
	// spoiled: pages came into the page cache that the trace does not have. They were pushed in
	// the window, or a machine that was already running read them before it, or they could not be
	// dropped.
	spoiled atomic.Bool

	// procs are the processes that read, and what each of them has read.
	procs   readProcs
	readers readers
	// stalls are the times in which READs were outstanding.
	stalls *wss.StallLog
}

func newEpoch(pages uint64, window time.Duration, armed, bare bool) *epoch {
	now := time.Now()
	record := func() *wss.Recorder {
		return wss.NewRecorder(wss.RecorderOptions{
			ImagePages: pages,
			Source:     wss.SourceRead,
			Way:        "read trace of a lazy restore, 4 KiB",
			Window:     window,
		})
	}
	return &epoch{
		pages:  pages,
		window: window,
		armed:  armed,
		bare:   bare,
		base:   now,
		procs:  readProcs{make: record},
		stalls: wss.NewStallLog(now),
	}
}

// start begins the window and the clock of the stalls, if they have not begun.
func (p *epoch) start(now time.Time) {
	if p.started.CompareAndSwap(0, max(int64(now.Sub(p.base)), 1)) {
		p.stalls.Reset(now)
	}
}

// age is how long the window has been open; false before it opened.
func (p *epoch) age(now time.Time) (time.Duration, bool) {
	started := p.started.Load()
	return now.Sub(p.base) - time.Duration(started), started != 0
}

// tracing says that the window is open, or will be at the next open.
func (p *epoch) tracing(now time.Time) bool {
	age, begun := p.age(now)
	return !p.spoiled.Load() && (!begun || age < p.window)
}

// exclusive says that READs are traced and only READs may fill the page cache: nobody may push.
func (p *epoch) exclusive(now time.Time) bool {
	return (p.armed || p.bare) && p.tracing(now)
}

// spoil notes that pages are pushed, so that the trace is not complete: they can be used without a READ.
func (p *epoch) spoil(now time.Time) {
	if p.tracing(now) {
		p.spoiled.Store(true)
	}
}

// A source is the thread that a READ is for, and the memory file.
type source struct {
	tid  uint32
	node uint64
}

// read notes a READ of count pages that will be in the page cache. alone says that it asks for a page
// whose reading ahead was refused before.
func (p *epoch) read(by source, first, count uint64, alone bool, now time.Time) {
	age, begun := p.age(now)
	switch {
	case p.spoiled.Load() || begun && age >= p.window:
	case !begun:
		// By a machine that was running when the image became cold. The next machine finds these
		// pages in the page cache and does not read them.
		p.spoiled.Store(true)
	default:
		proc := p.procs.of(by.tid, by.node)
		if alone {
			proc.wanted.Add(1)
		}
		// In the machine's own time: a restore that need not wait for these READs comes here earlier.
		proc.read(first, count, max(age-p.stalls.Stalled(now), 0))
	}
}

// refuses says whether to refuse a READ of several pages that the kernel makes ahead of its reader, so
// that the reader asks for each page that it needs: see the package documentation.
func (p *epoch) refuses(by source, count uint64, now time.Time) bool {
	if _, begun := p.age(now); !begun || !p.exclusive(now) || by.tid == 0 {
		return false
	}
	proc := p.procs.of(by.tid, by.node)
	if proc.bulk() {
		return false
	}
	proc.refused.Add(count)
	return true
}

// readPages is how many pages were read in the window, those of a process that read them of two files
// twice.
func (p *epoch) readPages() (n uint64) {
	for _, proc := range p.procs.all() {
		n += proc.trace.Pages()
	}
	return n
}

// recorded says whether there is a record.
func (p *epoch) recorded(now time.Time) error {
	_, begun := p.age(now)
	switch {
	case p.spoiled.Load():
		return ErrNotCold
	case !begun || p.readPages() == 0:
		return ErrNothing
	}
	return nil
}

// set makes a working set of what some processes read.
func (p *epoch) set(procs []*readProc, now time.Time) *wss.Set {
	age, _ := p.age(now)
	return p.procs.merged(procs, age, now)
}
