package fs

import (
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/learn"
)

// A watch finds out what one restore shows of its working set: which of the pages that are not brought its
// machine asks for. While it is on nothing is pushed beside or ahead of READs, because nobody would see
// whether that is used. READs call it, so they find no lock in it but that of the record.
//
// The methods of a nil watch do nothing.
type watch struct {
	study *study
	m     *memoryFile
	sess  *session
	quiet time.Duration // Options.LearnQuiet

	// set are the pages that the restore is to bring, out those of them that it leaves out, and those
	// that a candidate leaves out. Neither changes.
	set, out       *bitmap
	sample, checks []uint64
	candidate      *candidateFeed // nil: the set is that of the image
	flight         atomic.Pointer[flight]

	trace *wss.Recorder
	order sequence
	base  time.Time
	// begun is when the machine could run, last when it last asked for a page, in nanoseconds since base;
	// begun 0: not yet.
	begun, last atomic.Int64
	stalled     time.Duration // of the epoch, when the machine could run; written before begun
	pages, big  atomic.Uint64 // that were asked for, and those of large READs
	why         atomic.Pointer[string]
	over        atomic.Bool
}

const (
	// watchQuiet without a demand fault ends a watch, where Options say nothing else, or maxWatch.
	watchQuiet = 2 * time.Second
	maxWatch   = 30 * time.Second
	// watchLook is between two looks whether it has ended.
	watchLook = 50 * time.Millisecond
	// maxWatched is how many restores are watched at once.
	maxWatched = 8
)

// Why a restore teaches nothing.
const (
	whyClosed   = "the machine had ended before it was over"
	whyEnded    = "the mount has ended"
	whyCold     = "the image was made cold"
	whyCapped   = "the prefetch was capped"
	whyFailed   = "the prefetch has failed"
	whySlow     = "the set was not there in time"
	whyThrough  = "the image was read through"
	whyNobody   = "nothing of the set was used, and almost nothing else"
	whyPoisoned = "the clone was written to"
)

// on says whether READs are watched, so that nothing may be pushed but the set.
func (w *watch) on() bool { return w != nil && !w.over.Load() }

// leavesOut says whether a page is not to be brought.
func (w *watch) leavesOut(gfn uint64) bool { return w.on() && w.out.has(gfn) }

// spoil notes why the restore teaches nothing. The first reason counts.
func (w *watch) spoil(why string) {
	if w.on() {
		w.why.CompareAndSwap(nil, &why)
	}
}

// begin notes that the machine can run.
func (w *watch) begin(now time.Time) {
	if w != nil && w.begun.Load() == 0 {
		w.stalled = w.sess.epoch.stalls.Stalled(now)
		w.begun.CompareAndSwap(0, max(int64(now.Sub(w.base)), 1))
	}
}

// of notes the flight that brings the set.
func (w *watch) of(f *flight) {
	if w != nil {
		w.flight.Store(f)
	}
}

// read notes a READ of pages that have not been there. Of a large one nobody knows which of its pages was
// touched.
func (w *watch) read(m *memoryFile, first, count uint64, now time.Time) {
	if !w.on() || m.hole(first, count) {
		return
	}
	w.order.read(first, count)
	w.last.Store(int64(now.Sub(w.base)))
	if count >= bigRead {
		w.big.Add(count)
		return
	}
	w.pages.Add(count)
	at := time.Duration(0)
	if begun := time.Duration(w.begun.Load()); begun > 0 {
		at = now.Sub(w.base) - begun - max(w.sess.epoch.stalls.Stalled(now)-w.stalled, 0)
	}
	w.trace.AddRun(first, count, max(at, 0), wss.NoVCPU)
}

// ended says whether the watch has come to its end, and why it teaches nothing; "" if it does.
func (w *watch) ended(now time.Time) (why string, ended bool) {
	f := w.flight.Load()
	switch {
	case w.why.Load() != nil:
		return *w.why.Load(), true
	case w.m.poisoned.Load():
		return whyPoisoned, true
	case w.m.sess.Load() != w.sess:
		return whyCold, true
	case w.pages.Load()+w.big.Load() > w.m.pages/4:
		return whyThrough, true
	case f != nil && f.capped.Load():
		return whyCapped, true
	case f != nil && (f.cut.Load() || f.lost.Load() != nil):
		return whyFailed, true
	}
	begun := time.Duration(w.begun.Load())
	if begun == 0 {
		return "", false
	}
	at := now.Sub(w.base)
	switch {
	case f != nil && !f.over.Load():
		if at-begun >= maxWatch {
			return whySlow, true
		}
	case f != nil && !f.whole.Load():
		return whyFailed, true
	case at-begun >= maxWatch || at-max(begun, time.Duration(w.last.Load())) >= w.quiet:
		return w.doubt(), true
	}
	return "", false
}

// doubt says why no machine has read what was read; "" if one may have.
func (w *watch) doubt() string {
	asked := w.trace.Set(0, w.base)
	read, used := asked.Bitmap(), 0
	for _, gfn := range w.sample {
		if read.Has(gfn) {
			used++
		}
	}
	switch {
	case w.big.Load() > w.pages.Load() && w.big.Load() > w.m.pages/64,
		w.order.copied() && w.pages.Load()+w.big.Load() > fewPages,
		asked.Pages() > fewPages && together(asked):
		return whyThrough
	case w.trace.Pages() < fewPages && (len(w.sample) == 0 || used == 0):
		return whyNobody
	}
	return ""
}

// shown is what the restore has shown.
func (w *watch) shown(why string, now time.Time) learn.Restore {
	x := learn.Restore{
		At: now, Base: w.study.base, Candidate: w.study.plan.Candidate, Pages: w.set.len(),
		Sample: w.sample, Checks: w.checks, Touched: w.trace.Set(now.Sub(w.base), now), Why: why,
		Brought: func(gfn uint64) bool { return w.set.has(gfn) && !w.out.has(gfn) },
	}
	return x
}

// feed is what the restore brings.
func (w *watch) feed(h *openImage) Feed {
	if w == nil || w.candidate == nil {
		return h.ws
	}
	return w.candidate
}

// schedule says when the pieces of the feed are wanted, as those of the image's set are.
func (w *watch) schedule(of *schedule) *schedule {
	if w == nil || w.candidate == nil {
		return of
	}
	return w.candidate.schedule(of)
}
