package report

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Timeline is a union of intervals, made ready for questions about windows of time. It is never
// changed after it is made.
type Timeline struct {
	stalls []wss.Interval  // ascending, disjoint, not touching, not empty
	before []time.Duration // stalled time before stalls[i]
	total  time.Duration
}

// NewTimeline makes the union of the intervals, which may come in any order and overlap; empty and
// inverted ones are left out. O(n log n).
func NewTimeline(intervals []wss.Interval) *Timeline {
	sorted := slices.DeleteFunc(slices.Clone(intervals), func(i wss.Interval) bool {
		return i.End <= i.Start
	})
	slices.SortFunc(sorted, func(a, b wss.Interval) int { return cmp.Compare(a.Start, b.Start) })
	t := &Timeline{stalls: sorted[:0]}
	for _, i := range sorted {
		if n := len(t.stalls); n > 0 && i.Start <= t.stalls[n-1].End {
			t.stalls[n-1].End = max(t.stalls[n-1].End, i.End)
			continue
		}
		t.stalls = append(t.stalls, i)
	}
	t.before = make([]time.Duration, len(t.stalls))
	for i, s := range t.stalls {
		t.before[i] = t.total
		t.total += s.End - s.Start
	}
	return t
}

// Intervals returns the union: ascending, disjoint. The caller must not change it.
func (t *Timeline) Intervals() []wss.Interval { return t.stalls }

// Total is the whole stalled time.
func (t *Timeline) Total() time.Duration { return t.total }

// Stalled is the stalled time within [from, to).
func (t *Timeline) Stalled(from, to time.Duration) time.Duration {
	if to <= from {
		return 0
	}
	return t.upTo(to) - t.upTo(from)
}

// upTo is the stalled time before x.
func (t *Timeline) upTo(x time.Duration) time.Duration {
	i := sort.Search(len(t.stalls), func(i int) bool { return t.stalls[i].Start >= x }) - 1
	if i < 0 {
		return 0
	}
	return t.before[i] + min(x, t.stalls[i].End) - t.stalls[i].Start
}

// Longest is the longest unbroken stall within [from, to); of one that reaches beyond it the part
// that lies in it.
func (t *Timeline) Longest(from, to time.Duration) (longest time.Duration) {
	for _, s := range t.stalls {
		longest = max(longest, min(s.End, to)-max(s.Start, from))
	}
	return longest
}

// Fractions cuts [from, to) into steps and returns the stalled share of each; the last step may be
// shorter than the others. It is the curve of the figure of the stalls.
func (t *Timeline) Fractions(from, to, step time.Duration) []float64 {
	if step <= 0 || to <= from {
		return nil
	}
	f := make([]float64, 0, (to-from+step-1)/step)
	for a := from; a < to; a += step {
		b := min(a+step, to)
		f = append(f, float64(t.Stalled(a, b))/float64(b-a))
	}
	return f
}

// MMU is the minimum mutator utilisation: the least share of a window of length w, wherever it lies
// in [from, to), that was not stalled. A w longer than that is cut to it; w <= 0 asks for single
// instants: 0 if there is a stall at all, else 1. An empty [from, to) has lost nothing: 1.
//
// Exact, O(n log n): moving a window changes its stalled time by at most one for one, so the
// stalled time of [x, x+w) is piecewise linear in x, and takes its greatest value where the window
// starts with a stall, or ends with one, or lies at an edge of [from, to).
func (t *Timeline) MMU(from, to, w time.Duration) float64 {
	if to <= from {
		return 1
	}
	if w <= 0 {
		if t.Stalled(from, to) > 0 {
			return 0
		}
		return 1
	}
	w = min(w, to-from)
	last := to - w
	worst := max(t.Stalled(from, from+w), t.Stalled(last, to))
	for _, s := range t.stalls {
		if x := s.Start; x >= from && x <= last {
			worst = max(worst, t.Stalled(x, x+w))
		}
		if x := s.End - w; x >= from && x <= last {
			worst = max(worst, t.Stalled(x, x+w))
		}
	}
	return 1 - float64(worst)/float64(w)
}

// TTR is the time to responsiveness, VEE'11 section 2.3: the earliest x from which on every window
// of length w has a utilisation of at least u. Time 0 is the moment at which the user asked for the
// restore, ready that of the guest's first instruction, end the end of the observation.
//
//   - Before ready the machine does not run, so no window may start there: x >= ready. Hence eager
//     restore, which never stalls afterwards, has TTR = ready for all w and u.
//   - u <= 0 asks for nothing: TTR is 0.
//   - u >= 1 allows no stall: TTR is the end of the last stall (and so it is for w <= 0).
//   - Only windows that lie wholly in the observation count. If the last of them is not good
//     enough, or the observation is shorter than w, the machine was not seen to become responsive:
//     ok is false, and the time is a lower bound.
func (t *Timeline) TTR(ready, end, w time.Duration, u float64) (x time.Duration, ok bool) {
	if u <= 0 {
		return 0, true
	}
	w = max(w, 0)
	last := end - w
	if last < ready {
		return ready, false
	}
	if w == 0 {
		return t.lastEnd(ready, end)
	}
	allowed := w - needed(w, u)
	if t.Stalled(last, end) > allowed {
		return last, false
	}
	// Between two neighbouring corners the stalled time of [x, x+w) is linear, with a slope of -1, 0
	// or 1. Going back from the end, the first corner that is too bad is followed by a fall to what
	// is allowed, one for one.
	corners := t.corners(ready, last, w)
	for i := len(corners) - 1; i >= 0; i-- {
		if s := t.Stalled(corners[i], corners[i]+w); s > allowed {
			return corners[i] + s - allowed, true
		}
	}
	return ready, true
}

// corners lists, ascending, the x in [from, to] at which the stalled time of [x, x+w) can change
// its slope.
func (t *Timeline) corners(from, to, w time.Duration) []time.Duration {
	c := make([]time.Duration, 0, 4*len(t.stalls)+1)
	c = append(c, from)
	for _, s := range t.stalls {
		for _, x := range [...]time.Duration{s.Start - w, s.End - w, s.Start, s.End} {
			if x > from && x <= to {
				c = append(c, x)
			}
		}
	}
	slices.Sort(c)
	return c
}

// lastEnd is TTR for windows of no length.
func (t *Timeline) lastEnd(ready, end time.Duration) (time.Duration, bool) {
	for i := len(t.stalls) - 1; i >= 0; i-- {
		switch s := t.stalls[i]; {
		case s.Start >= end:
			continue
		case s.End > end:
			return end, false
		default:
			return max(ready, s.End), true
		}
	}
	return ready, true
}

// needed is u*w in nanoseconds, rounded up, but for what is only the error of floating point
// (0.8 of a second is 800,000,000 ns, not one more).
func needed(w time.Duration, u float64) time.Duration {
	x := min(u, 1) * float64(w)
	if r := math.Round(x); math.Abs(x-r) < 1e-3 {
		return time.Duration(r)
	}
	return time.Duration(math.Ceil(x))
}

// TTR is Timeline.TTR of the union of the stalls.
func TTR(stalls []wss.Interval, ready, end, w time.Duration, u float64) (time.Duration, bool) {
	return NewTimeline(stalls).TTR(ready, end, w, u)
}
