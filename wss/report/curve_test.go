package report

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss"
)

// randomStalls are stalls of up to 300 ms within ten seconds.
func randomStalls(rng *rand.Rand) []wss.Interval {
	stalls := make([]wss.Interval, rng.IntN(40))
	for i := range stalls {
		at := time.Duration(rng.IntN(10_000)) * ms
		stalls[i] = wss.Interval{Start: at, End: at + time.Duration(rng.IntN(300))*ms}
	}
	return stalls
}

func TestCurveIsTTR(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 0))
	for range 300 {
		tl := NewTimeline(randomStalls(rng))
		ready, w := time.Duration(rng.IntN(3000))*ms, time.Duration(rng.IntN(2000))*ms
		end := ready + time.Duration(rng.IntN(9000))*ms
		c := tl.TTRCurve(ready, end, w)
		before := time.Duration(0)
		us := []float64{0, 0.3, 0.7, 0.8, 0.999, 1, 1.5}
		for _, p := range c.Points() {
			us = append(us, p.U)
		}
		slices.Sort(us)
		for _, u := range us {
			got, ok := c.At(u)
			want, wantOK := tl.TTR(ready, end, w, u)
			if got != want || ok != wantOK {
				t.Fatalf("TTR(%v, %v) in [%v, %v): %v %v, want %v %v", w, u, ready, end, got, ok,
					want, wantOK)
			}
			if ok && got < before {
				t.Fatalf("TTR(%v, %v) = %v falls below %v", w, u, got, before)
			}
			before = got
		}
		checkCorners(t, tl, c, ready, end, w)
	}
}

// checkCorners compares TTR with the straight lines between the corners.
func checkCorners(t *testing.T, tl *Timeline, c Curve, ready, end, w time.Duration) {
	t.Helper()
	points := c.Points()
	if len(points) == 0 {
		if _, ok := tl.TTR(ready, end, w, 1e-9); ok && c.Greatest() > 0 {
			t.Fatalf("no corners of a curve up to %v", c.Greatest())
		}
		return
	}
	if last := points[len(points)-1]; w > 0 && abs(last.U-c.Greatest()) > 1e-9 {
		t.Fatalf("the corners end at %v, not %v", last.U, c.Greatest())
	}
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		if b.U < a.U || b.TTR < a.TTR {
			t.Fatalf("corners %v, %v", a, b)
		}
		if b.U-a.U < 1e-6 {
			continue // a jump
		}
		u := (a.U + b.U) / 2
		got, ok := tl.TTR(ready, end, w, u)
		if want := (a.TTR + b.TTR) / 2; !ok || (got-want).Abs() > time.Microsecond {
			t.Fatalf("between %v and %v TTR(%v) is %v %v, not %v", a, b, u, got, ok, want)
		}
	}
}

func abs(x float64) float64 { return max(x, -x) }

func TestCurvePoints(t *testing.T) {
	// The worked example of the package: 300 ms of stall half a second after a prefetch of 1 s.
	c := NewTimeline(in(1500, 1800)).TTRCurve(sec, 10*sec, sec)
	want := []CurvePoint{{0, sec}, {0.7, sec}, {0.7, 1500 * ms}, {1, 1800 * ms}}
	if got := c.Points(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := c.Sample(5); len(got) != 5 || got[3] != (CurvePoint{0.8, 1600 * ms}) {
		t.Errorf("%v", got)
	}
	// A machine that stalls to the end was not seen to reach more than it had there.
	c = NewTimeline(in(0, 10_000)).TTRCurve(0, 10*sec, sec)
	if got := c.Points(); got != nil || c.Greatest() != 0 {
		t.Errorf("%v up to %v", got, c.Greatest())
	}
	c = NewTimeline(in(9500, 10_000)).TTRCurve(0, 10*sec, sec)
	if got := c.Greatest(); got != 0.5 {
		t.Errorf("greatest %v", got)
	}
	if got := c.Sample(10); len(got) != 5 {
		t.Errorf("%v", got)
	}
}
