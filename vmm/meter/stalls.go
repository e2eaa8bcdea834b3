package meter

import (
	"sync"
	"time"

	"github.com/thawfs/thaw/wss"
)

const (
	stallSample = 4 * time.Millisecond
	// stallWidth is the first resolution of a series. It gets coarser when a run gets long, as in Series.
	stallWidth = 10 * time.Millisecond
	// stallSettle is how long a sample may be corrected by later ones.
	stallSettle = 50 * time.Millisecond
)

// VCPUStalls says when a vCPU waited for pages. Time 0 is the machine's first instruction.
type VCPUStalls struct {
	VCPU    int     `json:"vcpu"`
	Seconds float64 `json:"seconds"`
	// Intervals have exact lengths; their positions are exact to the resolution.
	ResolutionSeconds float64        `json:"resolution_seconds"`
	Intervals         []wss.Interval `json:"intervals,omitempty"`
}

// stallLog makes a series from samples of the stalled time. A sample may be smaller than earlier ones:
// then those were too large.
type stallLog struct {
	series  *Series
	sum     time.Duration // of the last settled sample
	at      time.Duration // time of the last settled sample
	pending []stallPoint  // samples not settled, ascending in time and sum
}

type stallPoint struct{ at, sum time.Duration }

func newStallLog() *stallLog { return &stallLog{series: &Series{width: stallWidth}} }

// add takes a sample.
func (l *stallLog) add(at, sum time.Duration) {
	sum = max(sum, l.sum)
	for i := range l.pending {
		l.pending[i].sum = min(l.pending[i].sum, sum)
	}
	l.pending = append(l.pending, stallPoint{at, sum})
	l.settle(at - stallSettle)
}

// settle adds the samples before a time to the series.
func (l *stallLog) settle(until time.Duration) {
	n := 0
	for ; n < len(l.pending) && l.pending[n].at <= until; n++ {
		p := l.pending[n]
		// Assume that the wait ended just before the sample.
		l.enter(max(l.at, p.at-(p.sum-l.sum)), p.sum-l.sum)
		l.at, l.sum = p.at, p.sum
	}
	l.pending = append(l.pending[:0], l.pending[n:]...)
}

// enter distributes a stall over its slices.
func (l *stallLog) enter(from, stalled time.Duration) {
	for stalled > 0 {
		width := l.series.width
		n := min(stalled, from/width*width+width-from)
		l.series.Add(l.series.start.Add(from), uint64(n))
		from, stalled = from+n, stalled-n
	}
}

// intervals returns the series as intervals. A slice says how much of it was stalled, not which part.
func (l *stallLog) intervals(vcpu int) VCPUStalls {
	l.settle(1<<63 - 1)
	p := l.series.Progress("")
	width := l.series.width
	s := VCPUStalls{VCPU: vcpu, Seconds: l.sum.Seconds(), ResolutionSeconds: p.SliceSeconds}
	for i, n := range p.Slices {
		if n == 0 {
			continue
		}
		start := time.Duration(i) * width
		end := start + min(time.Duration(n), width)
		if k := len(s.Intervals); k > 0 && s.Intervals[k-1].End == start {
			s.Intervals[k-1].End = end
		} else {
			s.Intervals = append(s.Intervals, wss.Interval{Start: start, End: end})
		}
	}
	return s
}

// VCPU is a vCPU as the sampler needs it.
type VCPU interface {
	// Halts says whether it waits for an interrupt now, and how long it was halted in total.
	Halts() (now bool, total time.Duration)
	// Stalled returns the time that it has stalled, halts included.
	Stalled() time.Duration
}

// StallSampler watches the clocks of all vCPUs.
type StallSampler struct {
	vcpus      []VCPU
	begun      <-chan struct{}  // closed at the machine's first instruction
	first      func() time.Time // the time of the first instruction; zero: not yet
	quit, done chan struct{}

	mu    sync.Mutex // guards what follows
	logs  []*stallLog
	idles []idleWait
}

// idleWait is the time that a vCPU waited to be started by another one: it waited for no page, and KVM
// does not count it as a halt.
type idleWait struct {
	total time.Duration

	waiting      bool
	halts        time.Duration // the halted time when the wait began
	since, until time.Duration // the stalled time when the wait began, and at the last look
}

// look takes a sample: whether the vCPU waits for an interrupt of any kind, how long it was halted in
// total, and its stalled time.
func (w *idleWait) look(waits bool, halts, stalled time.Duration) {
	if waits && !w.waiting {
		w.halts, w.since = halts, stalled
	}
	if !waits && w.waiting && halts == w.halts { // a halt is counted when it ends
		w.total += w.until - w.since
	}
	w.waiting, w.until = waits, stalled
}

// SampleStalls starts sampling when begun is closed. first returns the time of the first instruction.
func SampleStalls[V VCPU](vcpus []V, begun <-chan struct{}, first func() time.Time) *StallSampler {
	s := &StallSampler{begun: begun, first: first, quit: make(chan struct{}),
		done: make(chan struct{}), idles: make([]idleWait, len(vcpus))}
	for _, c := range vcpus {
		s.vcpus = append(s.vcpus, c)
		s.logs = append(s.logs, newStallLog())
	}
	go s.loop()
	return s
}

func (s *StallSampler) loop() {
	defer close(s.done)
	select {
	case <-s.begun:
	case <-s.quit:
		return
	}
	tick := time.NewTicker(stallSample)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
			s.sample()
		}
	}
}

func (s *StallSampler) sample() {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Since(s.first())
	for i, c := range s.vcpus {
		waits, halts := c.Halts()
		stalled := c.Stalled()
		s.idles[i].look(waits, halts, stalled)
		if waits {
			continue // the counter of halts is updated only when it wakes up
		}
		s.logs[i].add(at, stalled-halts-s.idles[i].total)
	}
}

// Seconds returns how long each vCPU has stalled so far, in seconds. It lags a little and never decreases.
func (s *StallSampler) Seconds() (list []float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.logs {
		list = append(list, l.sum.Seconds())
	}
	return list
}

// Stop ends the sampling and returns the stalls of each vCPU.
func (s *StallSampler) Stop() (list []VCPUStalls) {
	close(s.quit)
	<-s.done
	ran := !s.first().IsZero()
	if ran {
		s.sample()
	}
	for i, l := range s.logs {
		if ran {
			list = append(list, l.intervals(i))
		}
	}
	return list
}
