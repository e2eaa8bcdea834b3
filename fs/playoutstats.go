package fs

import (
	"sync/atomic"
	"time"
)

// Playout is how a restore by working set was planned, and how it went. Seconds count from the open that
// began it, or, for what follows the machine, from the return of that open, which is taken for the
// machine's first instruction.
type Playout struct {
	// RestoreID is the name of the restore, which lines of the log have as "restore".
	RestoreID string `json:"restore_id"`
	// HeadStartSeconds is how long the opens waited; until they return, how long they have waited.
	HeadStartSeconds float64 `json:"head_start_seconds"`
	// HeadPages of the set had come when the opens returned; TailPages were to follow.
	HeadPages uint64 `json:"head_pages"`
	TailPages uint64 `json:"tail_pages"`
	// Timed: the working set has times of first touch, by which the head start was planned. Without
	// them, or with the policy working-set-full, there is no slack.
	Timed bool `json:"timed"`
	// Margin is by how much longer than measured the tail was expected to take: 0.25 is a quarter.
	Margin float64 `json:"margin"`
	// RateBytesPerSecond is how fast the pages of the set have come so far, the head's and the tail's.
	RateBytesPerSecond float64 `json:"rate_bytes_per_second"`
	// PlannedSlackSeconds is the least time, over the pieces of the tail, between the moment at which a
	// piece was expected by the rate at the opens' return, without the margin, and its recorded first
	// touch. nil: no piece of the tail had a time.
	PlannedSlackSeconds *float64 `json:"planned_slack_seconds"`
	// RealSlackSeconds is the same of the moments at which pieces have come. Below 0: one came after the
	// moment at which it was touched when the set was recorded.
	RealSlackSeconds *float64 `json:"real_slack_seconds"`
	// LatePages of the tail were asked for by a READ before they had come.
	LatePages uint64 `json:"late_pages"`
	// LateSecondsMax and LateSecondsTotal are the longest of these READs and their sum, from request to
	// answer: by how much pages were late.
	LateSecondsMax   float64 `json:"late_seconds_max"`
	LateSecondsTotal float64 `json:"late_seconds_total"`
	// Done: nothing more will come, because all is there, or the restore was ended or failed.
	Done bool `json:"done"`
}

// report is the landing as stats.json shows it.
func (l *landing) report() *Playout {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &Playout{
		RestoreID: l.id,
		HeadPages: l.head, TailPages: l.play.tail, Timed: l.play.timed, Margin: l.play.margin,
		RateBytesPerSecond:  l.play.pace.rate(),
		PlannedSlackSeconds: slackSeconds(l.play.planned),
		RealSlackSeconds:    slackSeconds(l.play.real),
		LatePages:           l.late.pages.Load(),
		LateSecondsMax:      time.Duration(l.late.longest.Load()).Seconds(),
		LateSecondsTotal:    time.Duration(l.late.total.Load()).Seconds(),
		Done:                l.over,
	}
	if p.HeadStartSeconds = l.play.head.Seconds(); !l.play.landed {
		p.HeadStartSeconds = time.Since(l.start).Seconds()
	}
	return p
}

func slackSeconds(d time.Duration) *float64 {
	if d == never {
		return nil
	}
	s := d.Seconds()
	return &s
}

// with puts the report of another file of the image in, which may be the newer one.
func (p *Playout) with(o *Playout, newer bool) *Playout {
	if p == nil {
		return o
	}
	sum := *p
	if newer {
		sum = *o
	}
	sum.LatePages = p.LatePages + o.LatePages
	sum.LateSecondsTotal = p.LateSecondsTotal + o.LateSecondsTotal
	sum.LateSecondsMax = max(p.LateSecondsMax, o.LateSecondsMax)
	return &sum
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// playoutMetrics sum up the restores by working set that have ended, and have the last one's plan.
type playoutMetrics struct {
	restores, latePages atomic.Uint64
	head, late          atomic.Int64 // nanoseconds
	last                atomic.Pointer[Playout]
}

func (m *playoutMetrics) add(p *Playout) {
	m.restores.Add(1)
	m.latePages.Add(p.LatePages)
	m.head.Add(int64(p.HeadStartSeconds * float64(time.Second)))
	m.late.Add(int64(p.LateSecondsTotal * float64(time.Second)))
	m.last.Store(p)
}

// of returns a value of the last restore; 0 where there was none.
func (m *playoutMetrics) of(value func(*Playout) float64) func() float64 {
	return func() float64 {
		if p := m.last.Load(); p != nil {
			return value(p)
		}
		return 0
	}
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}
