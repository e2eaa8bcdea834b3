package uffd

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// counters are what a pager has done, in pages of the image but for faults.
type counters struct {
	setPages atomic.Uint64
	setNanos atomic.Int64
	near     atomic.Uint64
	zeros    atomic.Uint64
	removed  atomic.Uint64
	again    atomic.Uint64 // faults on pages that were settled
	faults   atomic.Uint64
	times    [64 * timeParts]atomic.Uint64
}

// timeParts is into how many parts each power of two is cut: so times are exact to an eighth.
const timeParts = 8

// fault counts a fault that was answered.
func (c *counters) fault(took time.Duration) {
	c.faults.Add(1)
	c.times[timeSlot(uint64(max(took, 1)))].Add(1)
}

func timeSlot(ns uint64) int {
	power := bits.Len64(ns) - 1
	if power < 3 {
		return int(ns)
	}
	return power*timeParts + int(ns>>(power-3))%timeParts
}

// slotTime is the least time of a slot.
func slotTime(slot int) time.Duration {
	power, part := slot/timeParts, slot%timeParts
	if power < 3 {
		return time.Duration(slot)
	}
	return time.Duration(1)<<power + time.Duration(part)<<(power-3)
}

// quantile is the time within which a share of the faults was answered.
func (c *counters) quantile(share float64) time.Duration {
	left := int64(share * float64(c.faults.Load()))
	for slot := range c.times {
		if left -= int64(c.times[slot].Load()); left < 0 {
			return slotTime(slot)
		}
	}
	return 0
}

// Report is what became of a VM. Times of faults are from the reading of the message to the page's being
// there.
type Report struct {
	PID         int     `json:"pid"`
	PageSize    uint64  `json:"page_size"`
	Pages       uint64  `json:"pages"` // of the image
	End         string  `json:"end"`   // ended, killed or let-go
	SetPages    uint64  `json:"set_pages"`
	SetSeconds  float64 `json:"set_seconds"` // from the handshake on; 0: not all came
	Faults      uint64  `json:"faults"`
	FaultP50    float64 `json:"fault_p50_seconds"`
	FaultP99    float64 `json:"fault_p99_seconds"`
	AgainFaults uint64  `json:"again_faults"` // on pages that had been there, or were given back
	NearPages   uint64  `json:"near_pages"`   // brought along
	ZeroPages   uint64  `json:"zero_pages"`   // of them mapped beside others that were wanted
	Removed     uint64  `json:"removed_pages"`
	Seconds     float64 `json:"seconds"` // from the handshake to the end
}

// The ends of a VM.
const (
	Ended  = "ended"
	Killed = "killed"
	LetGo  = "let-go"
)

func (p *pager) report(pid int, end string) *Report {
	c := &p.count
	return &Report{
		PID: pid, PageSize: p.mem.pageSize, Pages: p.src.Pages(), End: end,
		SetPages: c.setPages.Load(), SetSeconds: time.Duration(c.setNanos.Load()).Seconds(),
		Faults: c.faults.Load(), FaultP50: c.quantile(0.5).Seconds(), FaultP99: c.quantile(0.99).Seconds(),
		AgainFaults: c.again.Load(), NearPages: c.near.Load(), ZeroPages: c.zeros.Load(),
		Removed: c.removed.Load(), Seconds: time.Since(p.begun).Seconds(),
	}
}
