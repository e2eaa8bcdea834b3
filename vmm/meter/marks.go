package meter

import (
	"sync"
	"time"
)

// Mark says when a guest had done a number of units.
type Mark struct {
	Units uint64        // in this run
	At    time.Duration // since the guest's first instruction
}

// Marks records the times of a guest's reports of its work. A mark is exact: its time is taken while
// the guest's report is handled, at no further cost for the guest.
//
// Their number is bounded. The first markFine reports are kept, and then each one whose units exceed
// those of the last kept one by 1/markFine of them: about 700 for each doubling of the work. Which
// reports are kept depends only on the units, not on the times. So all restores of one checkpoint,
// which do the same work in the same order, have marks at the same units, and their times can be
// compared without interpolation.
type Marks struct {
	mu    sync.Mutex // guards what follows
	start time.Time
	total uint64
	marks []Mark
}

const markFine = 1024

func NewMarks() *Marks { return &Marks{} }

// Begin sets the time of the first instruction.
func (m *Marks) Begin(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.start = t
}

// Add records a report at time t of the units done since the last report.
func (m *Marks) Add(t time.Time, units uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += units
	if n := len(m.marks); n >= markFine {
		if last := m.marks[n-1].Units; m.total-last < last/markFine {
			return
		}
	}
	m.marks = append(m.marks, Mark{Units: m.total, At: max(t.Sub(m.start), 0)})
}

// List returns the marks in ascending order.
func (m *Marks) List() []Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Mark{}, m.marks...)
}
