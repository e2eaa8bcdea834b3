package report

import (
	"fmt"
	"time"
)

// Two views of the same stalls never agree to the nanosecond. The VMM, or the kernel, sees a vCPU
// that does not run, from its fault to its return; the server sees a request, from its arrival to
// its answer. Several vCPUs that wait for one page are one request, and one request may bring what
// nobody waits for. What can be compared is the union of each: the time in which at least one vCPU
// waited, and that in which at least one request was outstanding.

// Tolerance is how far two views of the same stalls may differ, and why.
type Tolerance struct {
	// PerRequest is the part of a wait that only one of the views has, and Requests how many there
	// were: to put a vCPU to sleep and to wake it is 15 to 20 us of a request through FUSE.
	PerRequest time.Duration
	Requests   uint64
	// Edge is how sharp the coarser of the views is: the width of a StallLog's buckets.
	Edge time.Duration
	// Share of the greater total is what may differ in addition.
	Share float64
}

// Agreement is how well two views of the same stalls agree.
type Agreement struct {
	A, B       time.Duration // stalled, by either view
	Difference time.Duration // A - B
	Share      float64       // |Difference| of the greater of the two; 0 if both are 0
	Allowed    time.Duration // the stated error of the totals

	Window  time.Duration // both views were cut into windows of this length,
	Windows int           // so many,
	Mean    time.Duration // in which they differ by so much on average,
	Worst   time.Duration // and by so much at most,
	WorstAt time.Duration // in the window that begins here
}

// Agree compares two views of the stalls in [from, to), as a whole and by windows.
func Agree(a, b *Timeline, from, to, window time.Duration, t Tolerance) Agreement {
	g := Agreement{A: a.Stalled(from, to), B: b.Stalled(from, to), Window: window}
	g.Difference = g.A - g.B
	greater := max(g.A, g.B)
	if greater > 0 {
		g.Share = float64(g.Difference.Abs()) / float64(greater)
	}
	g.Allowed = time.Duration(t.Requests)*t.PerRequest + 2*t.Edge +
		time.Duration(t.Share*float64(greater))
	if window <= 0 {
		return g
	}
	var sum time.Duration
	for at := from; at < to; at += window {
		end := min(at+window, to)
		d := (a.Stalled(at, end) - b.Stalled(at, end)).Abs()
		sum += d
		if d > g.Worst {
			g.Worst, g.WorstAt = d, at
		}
		g.Windows++
	}
	if g.Windows > 0 {
		g.Mean = sum / time.Duration(g.Windows)
	}
	return g
}

// OK says whether the totals differ by no more than the stated error.
func (g Agreement) OK() bool { return g.Difference.Abs() <= g.Allowed }

// String is one line for a report.
func (g Agreement) String() string {
	verdict := "within"
	if !g.OK() {
		verdict = "beyond"
	}
	return fmt.Sprintf("%s and %s: they differ by %s (%.1f %%), %s the stated error of %s; "+
		"in windows of %s by %s on average, %s at most", humanSeconds(g.A), humanSeconds(g.B),
		humanSeconds(g.Difference.Abs()), g.Share*100, verdict, humanSeconds(g.Allowed),
		humanSeconds(g.Window), humanSeconds(g.Mean), humanSeconds(g.Worst))
}
