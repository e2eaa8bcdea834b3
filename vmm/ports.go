package vmm

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/thawfs/thaw/vmm/kvm"
)

// Ports through which a guest program talks to the VMM; src/guest.h is the other side.
const (
	portWord     = 0x500 // out: one word of a report
	portFail     = 0x504 // out: the report is complete; its number of 64-bit words
	portProgress = 0x508 // out: units done since the last time
	portReady    = 0x50c // out: memory is filled, the work begins
	portDone     = 0x510 // out: the program is finished
	portPace     = 0x514 // out: period in microseconds; in: wait for the next one
)

// reportWords is the length of a report, in 32-bit words: gfn, offset, expected, found, version.
const reportWords = 10

// portState is what of the device is saved.
type portState struct {
	Done     uint64 // units of all time
	PeriodUS uint32
	Ready    uint8
	Words    uint8 // words of a report taken so far
	Pad      uint16
	Word     [reportWords]uint32
}

// ports is the one device of a bare machine: progress, pace and the end of a guest program.
type ports struct {
	series *series
	now    func() time.Time

	mu    sync.Mutex // guards what follows
	state portState
	next  time.Time // when the next period begins; not saved, a restored guest begins a new one
}

func newPorts(now func() time.Time) *ports {
	return &ports{now: now, series: newSeries()}
}

// ended is the error by which a vCPU tells that the guest program is finished.
type guestDone struct{}

func (guestDone) Error() string { return "the guest program is finished" }

// access serves one exit of a vCPU. interrupt cuts a wait short. An error ends the machine.
func (p *ports) access(io kvm.IO, data []byte, interrupt <-chan struct{}) error {
	if io.Size != 4 || io.Count != 1 {
		return fmt.Errorf("the guest made a port access of %d x %d bytes at %#x", io.Count, io.Size,
			io.Port)
	}
	if !io.Out {
		var v uint32
		if io.Port == portPace && p.wait(interrupt) {
			v = 1
		}
		binary.LittleEndian.PutUint32(data, v)
		return nil
	}
	return p.out(io.Port, binary.LittleEndian.Uint32(data))
}

func (p *ports) out(port uint16, v uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch port {
	case portProgress:
		p.state.Done += uint64(v)
		p.series.add(p.now(), uint64(v))
	case portReady:
		p.state.Ready = 1
	case portPace:
		p.state.PeriodUS = v
		p.next = time.Time{}
	case portDone:
		return guestDone{}
	case portWord:
		if int(p.state.Words) < reportWords {
			p.state.Word[p.state.Words] = v
			p.state.Words++
		}
	case portFail:
		return p.wrongByte()
	default:
		return fmt.Errorf("the guest wrote %#x to port %#x, where nothing is", v, port)
	}
	return nil
}

// wait blocks until the next period begins. It is false when it was cut short: the guest then asks
// again, so that a machine can be stopped in the middle of a wait with nothing pending.
func (p *ports) wait(interrupt <-chan struct{}) bool {
	p.mu.Lock()
	now, period := p.now(), time.Duration(p.state.PeriodUS)*time.Microsecond
	if p.next.IsZero() {
		p.next = now
	}
	due := p.next
	p.mu.Unlock()
	if d := due.Sub(now); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-interrupt:
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// A guest that is late loses the periods that it missed, as a player drops frames.
	p.next = due.Add(period)
	if now := p.now(); p.next.Before(now) {
		p.next = now
	}
	return true
}

func (p *ports) wrongByte() error {
	w := func(i int) uint64 { return uint64(p.state.Word[2*i]) | uint64(p.state.Word[2*i+1])<<32 }
	if p.state.Words != reportWords {
		return fmt.Errorf("the guest reports an error in %d words, expected %d", p.state.Words,
			reportWords)
	}
	return &WrongByteError{GFN: w(0), Offset: w(1), Expected: w(2), Found: w(3), Version: uint32(w(4))}
}

// snapshot returns the state for the state file.
func (p *ports) snapshot() portState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// restore sets it.
func (p *ports) restore(s portState) error {
	if s.Words > reportWords {
		return badState("section %s: %d words of a report", tagPorts, s.Words)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	return nil
}
