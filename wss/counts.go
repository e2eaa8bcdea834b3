package wss

import (
	"math"
	"time"
)

// Counts is what a restore fetched and what the guest then needed, in pages (design: "Words").
// Zero pages count like any other page.
type Counts struct {
	Prefetched uint64        `json:"prefetched"` // in the page cache before the first instruction
	Skipped    uint64        `json:"skipped"`    // prefetched, then touched: no fetch on demand
	Lazy       uint64        `json:"lazy"`       // touched, but had to be fetched on demand
	Window     time.Duration `json:"window_ns"`  // how long after the restore was counted
}

// Count compares what was prefetched with what the guest touched within the window.
func Count(prefetched, touched *Bitmap, window time.Duration) Counts {
	return Counts{
		Prefetched: prefetched.Count(),
		Skipped:    touched.And(prefetched).Count(),
		Lazy:       touched.AndNot(prefetched).Count(),
		Window:     window,
	}
}

// Precision is the share of the prefetched pages that the guest touched; NaN if none were.
func (c Counts) Precision() float64 { return ratio(c.Skipped, c.Prefetched) }

// Recall is the share of the touched pages that had been prefetched; NaN if none were touched.
// It is the "98.6 %" and "99.2 %" of VEE'11.
func (c Counts) Recall() float64 { return ratio(c.Skipped, c.Skipped+c.Lazy) }

func ratio(a, b uint64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}
