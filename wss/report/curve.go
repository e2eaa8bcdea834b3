package report

import (
	"sort"
	"time"
)

// Curve is TTR(w, u) as a function of u, for one w: "we look at TTR as a curve instead of a single
// number" (VEE'11, section 5.3). It is exact, it never falls, and it is made of straight lines and
// jumps.
type Curve struct {
	w, ready, last time.Duration
	// lines, ascending in what a window may be stalled, so descending in u. Where more is allowed
	// than the last of them says, TTR is ready; where less than the first, it was not seen.
	lines []curveLine
	least time.Duration // what the last window was stalled: no less was seen to be kept
}

// curveLine is TTR = top - allowed for allowed in [from, to).
type curveLine struct{ from, to, top time.Duration }

// CurvePoint is a corner of a Curve.
type CurvePoint struct {
	U   float64
	TTR time.Duration
}

// TTRCurve is Timeline.TTR for all u at once, O(n log n).
func (t *Timeline) TTRCurve(ready, end, w time.Duration) Curve {
	w = max(w, 0)
	c := Curve{w: w, ready: ready, last: end - w}
	if c.last < ready {
		return c
	}
	if w == 0 {
		// No window, no share of it: all that u asks for is the end of the stalls.
		x, ok := t.lastEnd(ready, end)
		c.ready, c.last = x, x
		if !ok {
			c.least = 1
		}
		return c
	}
	c.least = t.Stalled(c.last, end)
	worst := c.least
	corners := t.corners(ready, c.last, w)
	for i := len(corners) - 1; i >= 0; i-- {
		// As TTR has it: what is allowed up to here was exceeded first, seen from the end, at this
		// corner, and is kept again after a fall of one for one.
		if s := t.Stalled(corners[i], corners[i]+w); s > worst {
			c.lines = append(c.lines, curveLine{worst, s, corners[i] + s})
			worst = s
		}
	}
	return c
}

// At is the TTR for one u. ok is that of Timeline.TTR.
func (c Curve) At(u float64) (x time.Duration, ok bool) {
	switch {
	case u <= 0:
		return 0, true
	case c.last < c.ready:
		return c.ready, false
	}
	allowed := c.w - needed(c.w, u)
	if allowed < c.least {
		return c.last, false
	}
	i := sort.Search(len(c.lines), func(i int) bool { return c.lines[i].to > allowed })
	if i == len(c.lines) {
		return c.ready, true
	}
	return c.lines[i].top - allowed, true
}

// Greatest is the greatest u that the machine was seen to reach; 0 if none.
func (c Curve) Greatest() float64 {
	switch {
	case c.last < c.ready || c.w == 0 && c.least > 0:
		return 0
	case c.w == 0:
		return 1
	}
	return 1 - float64(c.least)/float64(c.w)
}

// Points are the corners for u above 0, ascending: between two of them the curve is straight. Two
// of one u are a jump, and the curve itself has the lower one there. The last has u = Greatest; if
// there is none, no u was reached.
func (c Curve) Points() []CurvePoint {
	greatest := c.Greatest()
	if greatest == 0 {
		return nil
	}
	points := []CurvePoint{{0, c.ready}}
	add := func(p CurvePoint) {
		if p != points[len(points)-1] {
			points = append(points, p)
		}
	}
	for i := len(c.lines) - 1; i >= 0; i-- {
		l := c.lines[i]
		u := 1 - float64(l.to)/float64(c.w)
		if i == len(c.lines)-1 {
			add(CurvePoint{u, c.ready})
		}
		add(CurvePoint{u, l.top - l.to})
		add(CurvePoint{1 - float64(l.from)/float64(c.w), l.top - l.from})
	}
	if len(c.lines) == 0 {
		add(CurvePoint{greatest, c.ready})
	}
	return points
}

// Sample is the curve at u = 1/n, 2/n, … up to Greatest.
func (c Curve) Sample(n int) []CurvePoint {
	points := make([]CurvePoint, 0, n)
	for i := 1; i <= n; i++ {
		u := float64(i) / float64(n)
		ttr, ok := c.At(u)
		if !ok {
			break
		}
		points = append(points, CurvePoint{u, ttr})
	}
	return points
}
