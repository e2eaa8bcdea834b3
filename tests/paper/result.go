package main

import (
	"encoding/json"
	"fmt"
)

// comparison is what is read of the JSON of `thaw compare`.
type comparison struct {
	Guest      string   `json:"guest"`
	Disk       string   `json:"disk"`
	GuestPages uint64   `json:"guest_pages"`
	Window     float64  `json:"ttr_window_seconds"`
	Methods    []method `json:"methods"`
	Warm       *warmRun `json:"warm"`
	Checkpoint struct {
		Scan  *scanning `json:"scan"`
		Trace *tracing  `json:"trace"`
	} `json:"checkpoint"`
	// KernelBefore is how much of the time the vCPUs were in the kernel before the estimates.
	KernelBefore float64 `json:"kernel_share_before"`
}

// method is a restore; null is what does not apply, or was not seen.
type method struct {
	Method     string   `json:"method"`
	Prefetched uint64   `json:"prefetched"`
	Skipped    *uint64  `json:"skipped"`
	Lazy       *uint64  `json:"lazy"`
	Recall     *float64 `json:"recall"`
	Precision  *float64 `json:"precision"`
	Restore    float64  `json:"restore_seconds"`
	Longest    float64  `json:"longest_stall_seconds"`
	Stalled    float64  `json:"stall_seconds"` // from the first instruction on
	HeadStart  *float64 `json:"head_start_seconds"`
	LatePages  *uint64  `json:"late_pages"`
	TTRs       []ttr    `json:"ttr"`
	Delays     []delay  `json:"delays"`
	Pace       *pace    `json:"pace"`
}

// ttr is a TTR at one window and utilisation: seconds, or a bound that it lies above.
type ttr struct {
	Window float64  `json:"window_seconds"`
	U      float64  `json:"u"`
	TTR    *float64 `json:"seconds"`
	Above  *float64 `json:"above_seconds"`
}

// delay is how much later than in the warm run the guest had done so many units.
type delay struct {
	Units uint64   `json:"units"`
	Delay *float64 `json:"seconds"`
	Above *float64 `json:"above_seconds"`
}

// warmRun is the restore with all of memory in the page cache.
type warmRun struct {
	Restore float64 `json:"restore_seconds"`
	Units   string  `json:"units"`
	Done    []struct {
		Units   uint64  `json:"units"`
		Seconds float64 `json:"seconds"`
	} `json:"done"`
}

// pace is the application's own measure.
type pace struct {
	Recovery      *float64 `json:"recovery_seconds"`
	RecoveryAbove *float64 `json:"recovery_above_seconds"`
}

// scanning is the cost of scanning access bits.
type scanning struct {
	Pages  uint64  `json:"pages"`
	Sweeps int     `json:"sweeps"`
	Share  float64 `json:"share"`
	Budget float64 `json:"budget"`
}

// tracing is the cost of tracing first touches.
type tracing struct {
	Pages         uint64  `json:"pages"`
	Seconds       float64 `json:"seconds"`
	KernelSeconds float64 `json:"kernel_seconds"`
}

// inKernel are the seconds that the vCPUs were in the kernel because of first touches: those beyond
// what they had been there in the same time before.
func (c comparison) inKernel() (seconds float64, ok bool) {
	t := c.Checkpoint.Trace
	if t == nil || t.KernelSeconds <= 0 {
		return 0, false
	}
	return max(t.KernelSeconds-c.KernelBefore*t.Seconds, 0), true
}

// perTouch are the seconds in the kernel for each first touch.
func (c comparison) perTouch() (seconds float64, ok bool) {
	seconds, ok = c.inKernel()
	if !ok || c.Checkpoint.Trace.Pages == 0 {
		return 0, false
	}
	return seconds / float64(c.Checkpoint.Trace.Pages), true
}

// parseComparison reads the JSON of one comparison.
func parseComparison(text []byte) (c comparison, err error) {
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("what thaw compare printed: %w", err)
	}
	if len(c.Methods) == 0 || c.GuestPages == 0 {
		return c, fmt.Errorf("what thaw compare printed is not a comparison: no methods or no pages")
	}
	if c.Window != 1 {
		return c, fmt.Errorf("thaw compare used a TTR window of %g s, the paper one of 1 s", c.Window)
	}
	return c, nil
}

func (c comparison) find(name string) (method, bool) {
	for _, m := range c.Methods {
		if m.Method == name {
			return m, true
		}
	}
	return method{}, false
}

// points are the amounts of work at which delays were measured.
func (c comparison) points() (points []uint64) {
	if c.Warm != nil {
		for _, d := range c.Warm.Done {
			points = append(points, d.Units)
		}
	}
	return points
}

// span is a time that was seen, or that is only known to be longer.
type span struct {
	seconds float64
	above   bool
}

// spanOf is a value or its bound; ok is false where there is neither.
func spanOf(value, above *float64) (s span, ok bool) {
	switch {
	case value != nil:
		return span{*value, false}, true
	case above != nil:
		return span{*above, true}, true
	}
	return s, false
}

// ttr is TTR(1 s, u).
func (m method) ttr(u float64) (span, bool) { return m.ttrOf(1, u) }

// sharp is TTR(100 ms, 95 %).
func (m method) sharp() (span, bool) { return m.ttrOf(0.1, 0.95) }

func (m method) ttrOf(window, u float64) (span, bool) {
	for _, t := range m.TTRs {
		if t.Window == window && t.U == u {
			return spanOf(t.TTR, t.Above)
		}
	}
	return span{}, false
}

// late is how much later than in the warm run so many units had been done.
func (m method) late(units uint64) (span, bool) {
	for _, d := range m.Delays {
		if d.Units == units {
			return spanOf(d.Delay, d.Above)
		}
	}
	return span{}, false
}

// waited is how long the user and then the guest waited for memory: until the first instruction, and
// in stalls after it.
func (m method) waited() (span, bool) { return span{m.Restore + m.Stalled, false}, true }

// back is when the application had its pace back, from the request on.
func (m method) back() (span, bool) {
	if m.Pace == nil {
		return span{}, false
	}
	return spanOf(m.Pace.Recovery, m.Pace.RecoveryAbove)
}
