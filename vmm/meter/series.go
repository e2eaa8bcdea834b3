// Package meter measures a running machine in bounded memory: units of work per slice of time
// ([Series]), the times at which a number of units had been done ([Marks]), and when vCPUs waited for
// pages ([SampleStalls]).
package meter

import (
	"sync"
	"time"
)

// Series counts units per slice of time since the guest's first instruction. Its size is bounded: when
// a run gets long, each two slices are joined.
type Series struct {
	mu    sync.Mutex // guards what follows
	start time.Time
	width time.Duration
	units []uint64
	total uint64
}

const (
	seriesWidth = 100 * time.Millisecond
	seriesMax   = 6000 // slices: ten minutes before the first joining
)

func NewSeries() *Series { return &Series{width: seriesWidth} }

// Begin sets the time of the first instruction.
func (s *Series) Begin(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start = t
}

func (s *Series) Add(t time.Time, units uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += units
	slot := int(max(t.Sub(s.start), 0) / s.width)
	for slot >= seriesMax {
		s.join()
		slot /= 2
	}
	for len(s.units) <= slot {
		s.units = append(s.units, 0)
	}
	s.units[slot] += units
}

// join makes the slices twice as wide.
func (s *Series) join() {
	for i := range s.units {
		if i%2 == 0 {
			s.units[i/2] = s.units[i]
		} else {
			s.units[i/2] += s.units[i]
		}
	}
	s.units = s.units[:(len(s.units)+1)/2]
	s.width *= 2
}

// Progress is the work that a guest did over time.
type Progress struct {
	Units        string   `json:"units"`         // the unit of work
	Total        uint64   `json:"total"`         // in this run
	SliceSeconds float64  `json:"slice_seconds"` // width of a slice
	Slices       []uint64 `json:"slices"`        // units per slice since the first instruction
	// Marks are pairs: a number of units, and the microseconds from the first instruction until they
	// had been done; see the type Marks.
	Marks [][2]uint64 `json:"marks_us,omitempty"`
}

func (s *Series) Progress(units string) Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Progress{Units: units, Total: s.total, SliceSeconds: s.width.Seconds(),
		Slices: append([]uint64{}, s.units...)}
}
