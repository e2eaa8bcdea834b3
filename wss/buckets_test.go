package wss_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// bucketsOf is what a log makes of stalls that do not overlap.
func bucketsOf(stalls []wss.Interval) []wss.Interval {
	l := wss.NewStallLog(time.Unix(0, 0))
	for _, i := range stalls {
		l.KeepAt(i.Start, i.End)
	}
	return l.SnapshotAt(20 * sec).Intervals(time.Unix(0, 0))
}

// TTR of the buckets is that of the exact intervals to within a bucket at each edge.
func TestIntervalsKeepTTR(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	var exact []wss.Interval // disk reads of about 10 ms, for three seconds
	for at := time.Duration(0); at < 3*sec; {
		read := time.Duration((8 + 4*rng.Float64()) * float64(ms))
		exact = append(exact, wss.Interval{Start: at, End: at + read})
		at += read + time.Duration(1.3*rng.Float64()*float64(read))
	}
	rough := bucketsOf(exact)
	for u := 0.05; u < 1; u += 0.05 {
		a, _ := report.TTR(exact, 0, 20*sec, sec, u)
		b, _ := report.TTR(rough, 0, 20*sec, sec, u)
		// A window's stalled time is off by less than 2 ms, so the answers lie between those for
		// utilisations that differ by as much.
		lo, _ := report.TTR(exact, 0, 20*sec, sec, u-0.002)
		hi, _ := report.TTR(exact, 0, 20*sec, sec, u+0.002)
		if b < lo-2*ms || b > hi+2*ms {
			t.Errorf("u %.2f: exact %v, of buckets %v", u, a, b)
		}
	}
}

// A log's buckets are a coarser view of the same stalls: they agree within the width of two of them
// in the whole and in every window.
func TestLogsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	for range 100 {
		stalls := make([]wss.Interval, rng.IntN(40)) // of up to 300 ms within ten seconds
		for i := range stalls {
			at := time.Duration(rng.IntN(10_000)) * ms
			stalls[i] = wss.Interval{Start: at, End: at + time.Duration(rng.IntN(300))*ms}
		}
		exact := report.NewTimeline(stalls)
		coarse := report.NewTimeline(bucketsOf(exact.Intervals()))
		from := time.Duration(rng.IntN(5000))*ms + 300*time.Microsecond
		tolerance := report.Tolerance{Edge: ms}
		got := report.Agree(exact, coarse, from, from+6*sec, sec/2, tolerance)
		if !got.OK() || got.Worst > 2*ms {
			t.Fatalf("%v", got)
		}
		back := report.Agree(coarse, exact, from, from+6*sec, sec/2, tolerance)
		if back.Difference != -got.Difference || back.Worst != got.Worst {
			t.Fatalf("%v, the other way round %v", got, back)
		}
	}
}

// TTR(100 ms, 95 %) allows 5 ms of stalls in a window, so it asks more of the buckets: that of the
// buckets lies between those of utilisations that differ by a bucket at each edge.
func TestIntervalsKeepSharpTTR(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 9))
	for range 50 {
		var exact []wss.Interval // faults of 20 us to 1 ms, the more seldom the later
		gap := 100 * time.Microsecond
		for at := time.Duration(0); at < 2*sec; gap += gap / 100 {
			wait := 20*time.Microsecond + time.Duration(rng.IntN(980))*time.Microsecond
			exact = append(exact, wss.Interval{Start: at, End: at + wait})
			at += wait + time.Duration(2*rng.Float64()*float64(gap))
		}
		rough := bucketsOf(exact)
		const bucket = 250 * time.Microsecond
		off := 2 * float64(bucket) / float64(100*ms)
		got, ok := report.TTR(rough, 0, 3*sec, 100*ms, 0.95)
		lo, _ := report.TTR(exact, 0, 3*sec, 100*ms, 0.95-off)
		hi, _ := report.TTR(exact, 0, 3*sec, 100*ms, 0.95+off)
		if !ok || got < lo-2*bucket || got > hi+2*bucket {
			t.Fatalf("of buckets %v, exact from %v to %v", got, lo, hi)
		}
	}
}
