package wss

import (
	"sync"
	"time"
)

// RecorderOptions says what is recorded.
type RecorderOptions struct {
	ImagePages uint64        // size of the image; needed
	Source     Source        // of every run; needed
	Way        string        // see Set
	Window     time.Duration // touches later than this are left out; 0: no end
	Slice      time.Duration // pages touched within it may share a run; 0: 1 ms
	MaxRuns    int           // bound of the memory; 0 or too large: MaxRuns
}

// DefaultSlice keeps the times of a record right to a millisecond.
const DefaultSlice = time.Millisecond

// Recorder makes a Set out of first touches. It keeps the first touch of each page and puts
// ascending neighbours that one vCPU touched within a slice of time into one run. It is safe for
// concurrent use; AddRun costs some tens of nanoseconds and allocates only as its record grows.
type Recorder struct {
	o RecorderOptions

	mu      sync.Mutex
	seen    *Bitmap
	runs    []Run
	dropped uint64
}

// NewRecorder returns an empty recorder.
func NewRecorder(o RecorderOptions) *Recorder {
	if o.Slice <= 0 {
		o.Slice = DefaultSlice
	}
	if o.MaxRuns <= 0 || o.MaxRuns > MaxRuns {
		o.MaxRuns = MaxRuns
	}
	return &Recorder{o: o, seen: NewBitmap(o.ImagePages)}
}

// AddRun records that count pages from gfn on were touched, at a time since the start of the recording,
// by a vCPU (or NoVCPU). Touches must come in order of time, but for what concurrent callers make of it.
// A page that was touched before, or that is not of the image, and a time beyond the window are left out.
func (r *Recorder) AddRun(gfn, count uint64, at time.Duration, vcpu int) {
	if r.o.Window > 0 && at > r.o.Window {
		return
	}
	if vcpu < 0 || vcpu > MaxVCPU {
		vcpu = NoVCPU
	}
	at = recordTime(at)
	r.mu.Lock()
	defer r.mu.Unlock()
	for end := min(gfn+count, r.o.ImagePages); gfn < end; gfn++ {
		if r.seen.Set(gfn) {
			r.add(gfn, at, vcpu)
		}
	}
}

// add records a first touch. r.mu is held.
func (r *Recorder) add(gfn uint64, at time.Duration, vcpu int) {
	if n := len(r.runs); n > 0 {
		last := &r.runs[n-1]
		if gfn == last.End() && vcpu == last.VCPU && at-last.At < r.o.Slice {
			last.Count++
			return
		}
		if n == r.o.MaxRuns {
			r.dropped++
			return
		}
	}
	r.runs = append(r.runs, Run{GFN: gfn, Count: 1, At: at, Source: r.o.Source, VCPU: vcpu})
}

// Pages is the number of pages recorded so far.
func (r *Recorder) Pages() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Count() - r.dropped
}

// Dropped is the number of pages that were left out because the record was full.
func (r *Recorder) Dropped() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Set returns what was recorded so far, as a set of its own. window is how long was recorded.
func (r *Recorder) Set(window time.Duration, created time.Time) *Set {
	if r.o.Window > 0 {
		window = min(window, r.o.Window)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Set{
		ImagePages: r.o.ImagePages,
		Window:     window,
		Way:        r.o.Way,
		Created:    created,
		Runs:       append([]Run(nil), r.runs...),
	}
}
