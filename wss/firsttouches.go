package wss

import (
	"math"
	"sort"
	"time"
)

// FirstTouches say when a restored machine touches its pages first, as far as a record tells.
//
// Only a trace and the reads of restores say that. A page of which neither tells, in a set that has
// times, was not touched while these were recorded: it is wanted at the end of the recording.
type FirstTouches struct {
	sources []sourceTouches
	end     time.Duration
}

// sourceTouches are the first touches that one source saw. Its runs do not overlap.
type sourceTouches struct {
	runs  []Run
	order []int // of the runs, by gfn
}

// FirstTouches returns the times of a valid set.
func (s *Set) FirstTouches() *FirstTouches {
	f := &FirstTouches{end: s.Window}
	for _, source := range []Source{SourceTrace, SourceRead, SourceLearned} {
		var t sourceTouches
		for _, r := range s.Runs {
			if r.Source == source {
				t.runs = append(t.runs, r)
				f.end = max(f.end, r.At)
			}
		}
		if len(t.runs) > 0 {
			t.order = Ascending(t.runs)
			f.sources = append(f.sources, t)
		}
	}
	return f
}

// Earliest is the first touch of one of some pages, counted from the machine's first instruction; known is
// false if the record has no times at all. It may be called by many goroutines at once.
func (f *FirstTouches) Earliest(gfns []uint64) (at time.Duration, known bool) {
	at = f.end
	for _, t := range f.sources {
		at = min(at, t.earliest(gfns))
	}
	return at, len(f.sources) > 0
}

// earliest is the first touch of one of some pages; the end of time if none of them is known.
func (t sourceTouches) earliest(gfns []uint64) time.Duration {
	at := time.Duration(math.MaxInt64)
	var run Run // the last one that was found: neighbours come one after another
	for _, gfn := range gfns {
		if gfn < run.GFN || gfn >= run.End() {
			i := sort.Search(len(t.order), func(i int) bool { return t.runs[t.order[i]].End() > gfn })
			if i == len(t.order) || t.runs[t.order[i]].GFN > gfn {
				continue
			}
			run = t.runs[t.order[i]]
		}
		at = min(at, run.At)
	}
	return at
}
