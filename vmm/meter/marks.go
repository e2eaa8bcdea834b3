package meter

import (
	"sync"
	"time"
)

// Mark says when a guest had done so many units.
type Mark struct {
	Units uint64        // in this run
	At    time.Duration // since the guest's first instruction
}

// Marks are the moments of a guest's own reports of its work. A mark is exact: it was taken while the
// guest waited for its report to be heard, and costs it nothing more.
//
// They are bounded. The first markFine reports are kept, then each that adds a markFine-th to the
// units of the last one kept: some 700 for each doubling of the work. Which ones are kept depends on
// the work alone and not on its time. So all restores of one checkpoint, which do the same work in
// the same order, have marks at the same units, and their times compare without interpolation.
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

// Add takes a report of units that were done since the last one.
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

// List returns the marks, ascending.
func (m *Marks) List() []Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Mark{}, m.marks...)
}
