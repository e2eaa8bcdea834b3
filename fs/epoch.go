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

	trace   *wss.Recorder
	readers readers
	// stalls are the times in which READs were outstanding.
	stalls *wss.StallLog
}

func newEpoch(pages uint64, window time.Duration, armed, bare bool) *epoch {
	now := time.Now()
	return &epoch{
		pages:  pages,
		window: window,
		armed:  armed,
		bare:   bare,
		base:   now,
		trace: wss.NewRecorder(wss.RecorderOptions{
			ImagePages: pages,
			Source:     wss.SourceRead,
			Way:        "read trace of a lazy restore, 4 KiB",
			Window:     window,
		}),
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

// read notes a READ of count pages that will be in the page cache.
func (p *epoch) read(first, count uint64, now time.Time) {
	age, begun := p.age(now)
	switch {
	case p.spoiled.Load() || begun && age >= p.window:
	case !begun:
		// By a machine that was running when the image became cold. The next machine finds these
		// pages in the page cache and does not read them.
		p.spoiled.Store(true)
	default:
		// In the machine's own time: a restore that need not wait for these READs comes here earlier.
		p.trace.AddRun(first, count, max(age-p.stalls.Stalled(now), 0), wss.NoVCPU)
		p.readers.read(first, count)
	}
}

// set makes a working set of what was read.
func (p *epoch) set(now time.Time) (*wss.Set, error) {
	age, begun := p.age(now)
	switch {
	case p.spoiled.Load():
		return nil, ErrNotCold
	case !begun || p.trace.Pages() == 0:
		return nil, ErrNothing
	}
	return p.trace.Set(age, now), nil
}
