package index

import "time"

// progressEvery bounds how often progress is reported.
const progressEvery = 100 * time.Millisecond

// meter reports progress, not too often. It is used by one goroutine.
type meter struct {
	fn   func(Progress)
	p    Progress
	last time.Time
}

func newMeter(fn func(Progress), stage, unit string, total int64) *meter {
	m := &meter{fn: fn, p: Progress{Stage: stage, Unit: unit, Total: total}}
	m.tell()
	return m
}

func (m *meter) add(n int64) {
	m.p.Done += n
	if m.fn == nil {
		return
	}
	if m.p.Done == m.p.Total || time.Since(m.last) >= progressEvery {
		m.tell()
	}
}

func (m *meter) tell() {
	if m.fn != nil {
		m.last = time.Now()
		m.fn(m.p)
	}
}
