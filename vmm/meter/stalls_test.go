package meter

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestIdleWait(t *testing.T) {
	var w idleWait
	for _, s := range []struct {
		waits                bool
		halts, stalled, want time.Duration
	}{
		{false, 5, 10, 0},
		{true, 5, 12, 0}, {true, 5, 40, 0}, {false, 35, 45, 0}, // a halt
		{true, 35, 50, 0}, {true, 35, 90, 0}, {false, 35, 95, 40}, // waits to be started
		{false, 35, 120, 40}, // for pages
		{true, 35, 130, 40}, {false, 35, 130, 40},
	} {
		if w.look(s.waits, s.halts, s.stalled); w.total != s.want {
			t.Errorf("%+v: %d", s, w.total)
		}
	}
}

// Samples that were too large are taken back, and nothing is counted twice.
func TestStallLog(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for range 50 {
		l := newStallLog()
		var at, sum time.Duration
		for range 2000 {
			step := time.Duration(r.IntN(int(2 * stallSample)))
			at += step
			if r.IntN(3) == 0 {
				sum += time.Duration(r.Int64N(int64(step) + 1))
			}
			l.add(at, sum+time.Duration(r.IntN(2)*r.IntN(int(step)+1)))
		}
		l.add(at+stallSettle, sum)
		s := l.intervals(3)
		var total, last time.Duration
		for _, i := range s.Intervals {
			if i.Start < last || i.End <= i.Start || i.End > at+stallSettle+stallWidth {
				t.Fatalf("interval %+v after %v, the end is %v", i, last, at)
			}
			total, last = total+i.End-i.Start, i.End
		}
		if got := time.Duration(s.Seconds * 1e9); s.VCPU != 3 || (got-sum).Abs() > time.Microsecond ||
			(total-sum).Abs() > stallWidth {
			t.Fatalf("total %v and intervals of %v, expected %v", got, total, sum)
		}
	}
}
