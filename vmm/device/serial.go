package device

import (
	"context"
	"io"
	"log/slog"
	"sync"
)

// SerialSize is the number of ports of a serial interface.
const SerialSize = 8

const (
	serialFIFO    = 16   // bytes
	serialBacklog = 1024 // bytes that the host side may be ahead of the FIFO
)

// Serial is a 16550A UART.
//
// Its transmitter is always empty: a byte that the guest writes is handed to the writer's goroutine
// in the same moment (see output). There is no wire and so no speed: the divisor is only
// remembered, and a received byte below the trigger level is reported at once as the character
// timeout that would come after four idle characters.
//
// The interrupt line is asserted as long as there is an enabled cause. The MCR bit OUT2, which
// gates it on a PC, is not looked at, as in other virtual machines.
type Serial struct {
	line Line
	out  *output

	mu       sync.Mutex  // guards what follows
	state    SerialState // all registers, as they are saved
	asserted bool
	drained  bool
}

// NewSerial makes a UART as after power-on, drained. What the guest sends goes to out.
func NewSerial(line Line, out io.Writer, log *slog.Logger) *Serial {
	s := &Serial{line: line, out: newOutput(out, log), drained: true}
	s.state.MSR = msrCTS | msrDSR | msrDCD
	s.state.DivisorL = 12 // 9600 baud
	return s
}

// Feed gives the guest input, as much as fits, and says how much that was. The caller drops the rest
// as a real line would: a reader of a terminal must not wait, for it looks out for an escape sequence.
func (s *Serial) Feed(p []byte) (taken int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drained {
		taken = copy(s.state.Backlog[s.state.BacklogLen:], p)
		s.state.BacklogLen += uint16(taken)
		s.fill()
	}
	return taken, s.update()
}

// Flush waits until the writer has taken all output.
func (s *Serial) Flush(ctx context.Context) error { return s.out.flush(ctx) }

// Drain makes Feed take nothing, so that the state stays as it is.
func (s *Serial) Drain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = true
	return nil
}

// Resume undoes Drain, and puts the interrupt line to its level.
func (s *Serial) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = false
	s.asserted = s.cause() != iirNone
	return s.line.Set(s.asserted)
}

// Close writes what output there is, then ends the writer's goroutine. It waits for the writer: one
// that may block for ever is to be unblocked by its owner.
func (s *Serial) Close() error {
	s.out.close()
	return nil
}

// Read returns the registers. An access of several bytes is one to several registers, as on a PC.
func (s *Serial) Read(off uint64, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range p {
		p[i] = s.read(off + uint64(i))
	}
	return s.update()
}

// Write sets the registers.
func (s *Serial) Write(off uint64, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range p {
		s.write(off+uint64(i), b)
	}
	return s.update()
}

// SerialState is the state of a Serial: every register, both ends of the receiver, and whether an
// empty transmitter is still to be told. A restored console is silent if IER is wrong, and deaf if
// a received byte is lost whose interrupt the guest has already seen.
//
// The transmitter has no FIFO to save: what the guest has sent is the writer's.
type SerialState struct {
	IER, FCR, LCR, MCR, LSR, MSR uint8 // of LSR only the errors, of FCR only what stays
	Scratch                      uint8
	DivisorL, DivisorH           uint8
	Empty                        uint8 // 1: the interrupt of an empty transmitter is due
	RxLen                        uint16
	Rx                           [serialFIFO]uint8
	BacklogLen                   uint16
	Backlog                      [serialBacklog]uint8
}

// Tag names the section of the state file.
func (*Serial) Tag() string { return "SERIAL" }

// State returns what is saved.
func (s *Serial) State() SerialState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Restore sets it. The interrupt line follows at Resume.
func (s *Serial) Restore(r SerialState) error {
	if err := r.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = r
	return nil
}

func (r *SerialState) check() error {
	switch capacity := r.capacity(); {
	case r.RxLen > capacity || r.BacklogLen > serialBacklog:
		return badState("serial port with %d bytes in a FIFO of %d, %d behind it", r.RxLen, capacity,
			r.BacklogLen)
	case r.IER&^ierMask != 0, r.MCR&^mcrMask != 0, r.LSR&^lsrErrors != 0, r.Empty > 1,
		r.FCR&^(fcrEnable|fcrTrigger) != 0, r.FCR != 0 && r.FCR&fcrEnable == 0:
		return badState("serial port with IER %#x, FCR %#x, MCR %#x, LSR %#x", r.IER, r.FCR, r.MCR,
			r.LSR)
	}
	return nil
}
