package vmm

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/thawfs/thaw/vmm/meter"
	"github.com/thawfs/thaw/vmm/state"
)

// Ports of a guest program's device. They match guest/src/guest.h.
const (
	portBase     = 0x500
	portCount    = 0x1c
	portWord     = 0x500 // out: one word of a report
	portFail     = 0x504 // out: the report is complete; its number of 64-bit words
	portProgress = 0x508 // out: units done since the last report
	portReady    = 0x50c // out: memory is filled, the work begins
	portDone     = 0x510 // out: the program is finished
	portPace     = 0x514 // out: period in microseconds; in: wait for the next one
	portSync     = 0x518 // out: the number of a point that a test may wait for
)

// ports is the only device of a machine with a guest program: it takes the program's progress, its
// errors and its end, and sets its pace. It is the [device.Handler] of its range of the port bus.
type ports struct {
	series *meter.Series
	marks  *meter.Marks
	now    func() time.Time
	// sync, if not nil, is called on the vCPU's thread at each sync point of a program.
	sync func(point uint32)

	mu    sync.Mutex // guards what follows
	state state.Ports
	next  time.Time     // when the next period begins; not saved, a restored guest begins a new one
	held  bool          // waiting is not allowed
	cut   chan struct{} // closed while held is true
}

func newPorts(now func() time.Time) *ports {
	return &ports{now: now, series: meter.NewSeries(), marks: meter.NewMarks(),
		cut: make(chan struct{})}
}

// hold ends a wait and prevents further ones until release, so that a pause does not wait for the end
// of a period.
func (p *ports) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.held {
		p.held = true
		close(p.cut)
	}
}

func (p *ports) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		p.held, p.cut = false, make(chan struct{})
	}
}

// guestDone is the error with which a vCPU ends when the guest program is finished.
type guestDone struct{}

func (guestDone) Error() string { return "the guest program is finished" }

// Read implements device.Handler.
func (p *ports) Read(off uint64, b []byte) error {
	if len(b) != 4 {
		return badAccess(off, b)
	}
	var v uint32
	if portBase+off == portPace && p.wait() {
		v = 1
	}
	binary.LittleEndian.PutUint32(b, v)
	return nil
}

// Write implements device.Handler. An error ends the machine.
func (p *ports) Write(off uint64, b []byte) error {
	if len(b) != 4 {
		return badAccess(off, b)
	}
	return p.out(portBase+uint16(off), binary.LittleEndian.Uint32(b))
}

func badAccess(off uint64, b []byte) error {
	return fmt.Errorf("the guest made an access of %d bytes to port %#x, which needs 4", len(b), portBase+off)
}

func (p *ports) out(port uint16, v uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch port {
	case portProgress:
		p.state.Done += uint64(v)
		now := p.now()
		p.series.Add(now, uint64(v))
		p.marks.Add(now, uint64(v))
	case portReady:
		p.state.Ready = 1
	case portPace:
		p.state.PeriodUS = v
		p.next = time.Time{}
	case portDone:
		return guestDone{}
	case portWord:
		if int(p.state.Words) < state.ReportWords {
			p.state.Word[p.state.Words] = v
			p.state.Words++
		}
	case portFail:
		return p.wrongByte()
	case portSync:
		if p.sync != nil {
			p.sync(v)
		}
	default:
		return fmt.Errorf("the guest wrote %#x to port %#x, which does not exist", v, port)
	}
	return nil
}

// begin records the time of the guest's first instruction.
func (p *ports) begin(t time.Time) {
	p.series.Begin(t)
	p.marks.Begin(t)
}

// progress returns the work that the guest has reported.
func (p *ports) progress(units string) meter.Progress {
	work := p.series.Progress(units)
	for _, m := range p.marks.List() {
		work.Marks = append(work.Marks, [2]uint64{m.Units, uint64(m.At.Microseconds())})
	}
	return work
}

// wait blocks until the next period begins. It returns false if hold ended it early: the guest then
// asks again, so a machine can be paused during a wait with no access half done.
func (p *ports) wait() bool {
	p.mu.Lock()
	now, period := p.now(), time.Duration(p.state.PeriodUS)*time.Microsecond
	if p.next.IsZero() {
		p.next = now
	}
	due, cut := p.next, p.cut
	p.mu.Unlock()
	if d := due.Sub(now); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-cut:
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// A guest that is late skips the periods that it missed, as a player drops frames.
	p.next = due.Add(period)
	if now := p.now(); p.next.Before(now) {
		p.next = now
	}
	return true
}

func (p *ports) wrongByte() error {
	w := func(i int) uint64 { return uint64(p.state.Word[2*i]) | uint64(p.state.Word[2*i+1])<<32 }
	if p.state.Words != state.ReportWords {
		return fmt.Errorf("the guest reported an error in %d words, and %d are expected", p.state.Words,
			state.ReportWords)
	}
	return &WrongByteError{GFN: w(0), Offset: w(1), Expected: w(2), Found: w(3), Version: uint32(w(4))}
}

// snapshot returns the state for the state file.
func (p *ports) snapshot() state.Ports {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// restore sets the state from a state file.
func (p *ports) restore(s state.Ports) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
}

// WrongByteError says that the guest found wrong contents in its memory.
type WrongByteError struct {
	GFN             uint64 `json:"gfn"`
	Offset          uint64 `json:"offset"` // in bytes, of the wrong 8-byte word in its page
	Expected, Found uint64 // the word, as a little-endian number
	Version         uint32 `json:"version"` // of the page: how often the guest has changed it
}

func (e *WrongByteError) Error() string {
	s := fmt.Sprintf("wrong byte in guest memory: gfn %d (%#x) offset %#x: expected %#016x, "+
		"found %#016x", e.GFN, e.GFN, e.Offset, e.Expected, e.Found)
	// The first word of a page encodes its frame and version.
	if gfn, version := e.Found&(1<<40-1), uint32(e.Found>>40); e.Offset == 0 && version != 0 &&
		e.Expected&(1<<40-1) == e.GFN {
		if gfn == e.GFN {
			s += fmt.Sprintf(" (version %d of the page, expected %d)", version, e.Version)
		} else {
			s += fmt.Sprintf(" (perhaps version %d of gfn %d)", version, gfn)
		}
	}
	return s
}
