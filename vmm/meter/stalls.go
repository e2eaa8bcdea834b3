package meter

import (
	"sync"
	"time"

	"github.com/thawfs/thaw/wss"
)

const (
	stallSample = 4 * time.Millisecond
	// stallWidth is the resolution of a series. When a run gets long it gets coarser, as that of
	// progress does.
	stallWidth = 10 * time.Millisecond
	// stallSettle is how long a sample may still turn out to be too large.
	stallSettle = 50 * time.Millisecond
)

// VCPUStalls says when a vCPU waited for pages. Time 0 is the machine's first instruction.
type VCPUStalls struct {
	VCPU    int     `json:"vcpu"`
	Seconds float64 `json:"seconds"`
	// Intervals have the right length, and lie right within the resolution.
	ResolutionSeconds float64        `json:"resolution_seconds"`
	Intervals         []wss.Interval `json:"intervals,omitempty"`
}

// stallLog makes a series out of samples of a sum that only seems to fall: a later sample that is
// smaller shows that the earlier ones were too large.
type stallLog struct {
	series  *Series
	sum     time.Duration // up to the last sample that is settled
	at      time.Duration // its time
	pending []stallPoint  // ascending in both
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

// settle enters what is older than that into the series.
func (l *stallLog) settle(until time.Duration) {
	n := 0
	for ; n < len(l.pending) && l.pending[n].at <= until; n++ {
		p := l.pending[n]
		// The wait ended just now or goes on, as far as anybody knows.
		l.enter(max(l.at, p.at-(p.sum-l.sum)), p.sum-l.sum)
		l.at, l.sum = p.at, p.sum
	}
	l.pending = append(l.pending[:0], l.pending[n:]...)
}

// enter spreads a stall over the slices that it lies in.
func (l *stallLog) enter(from, stalled time.Duration) {
	for stalled > 0 {
		width := l.series.width
		n := min(stalled, from/width*width+width-from)
		l.series.Add(l.series.start.Add(from), uint64(n))
		from, stalled = from+n, stalled-n
	}
}

// intervals returns the series. A slice tells how much of it was stalled, and not which part.
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

// VCPU is what the sampler asks of a vCPU.
type VCPU interface {
	// Halts says whether it waits for an interrupt, and how long it was halted so far.
	Halts() (now bool, total time.Duration)
	// Stalled is what its clock says, halts included.
	Stalled() time.Duration
}

// StallSampler watches the clocks of all vCPUs.
type StallSampler struct {
	vcpus      []VCPU
	begun      <-chan struct{}  // closed at the machine's first instruction
	first      func() time.Time // which was then; zero: not yet
	quit, done chan struct{}

	mu    sync.Mutex // guards what follows
	logs  []*stallLog
	idles []idleWait
}

// idleWait is what a vCPU waited for something other than a page, and KVM does not count as a halt:
// to be started by another one.
type idleWait struct {
	total time.Duration

	waiting      bool
	halts        time.Duration // when it began
	since, until time.Duration // on the clock of stalls: when it began, and when last looked
}

// look takes a sample: whether the vCPU waits for an interrupt of any kind, how long it has been
// halted so far, and the clock of its stalls.
func (w *idleWait) look(waits bool, halts, stalled time.Duration) {
	if waits && !w.waiting {
		w.halts, w.since = halts, stalled
	}
	if !waits && w.waiting && halts == w.halts { // a halt is counted when it ends
		w.total += w.until - w.since
	}
	w.waiting, w.until = waits, stalled
}

// SampleStalls starts sampling.
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
			continue // the counter is behind until it wakes up
		}
		s.logs[i].add(at, stalled-halts-s.idles[i].total)
	}
}

// Seconds is how long each vCPU has stalled so far. It lags behind a little and never falls.
func (s *StallSampler) Seconds() (list []float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.logs {
		list = append(list, l.sum.Seconds())
	}
	return list
}

// Stop ends the sampling and gives what it found.
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
