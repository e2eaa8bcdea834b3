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
	serialBacklog = 1024 // bytes of input that wait for room in the FIFO
)

// Serial is a 16550A UART.
//
// Its transmitter is always empty: a byte that the guest writes is passed to the writer's goroutine at
// once (see output). There is no line speed: the divisor is only stored, and received bytes below the
// trigger level are reported at once, as the character timeout that a real UART gives after four idle
// characters.
//
// The interrupt line is asserted as long as there is an enabled cause. The MCR bit OUT2, which gates it
// on a PC, is ignored, as in other virtual machines.
type Serial struct {
	line Line
	out  *output

	mu       sync.Mutex  // guards what follows
	state    SerialState // all registers, as they are saved
	asserted bool
	drained  bool
}

// NewSerial makes a UART in its power-on state, drained. The guest's output is written to out.
func NewSerial(line Line, out io.Writer, log *slog.Logger) *Serial {
	s := &Serial{line: line, out: newOutput(out, log), drained: true}
	s.state.MSR = msrCTS | msrDSR | msrDCD
	s.state.DivisorL = 12 // 9600 baud
	return s
}

// Feed passes input to the guest, as many bytes as fit, and returns their number. The caller should
// drop the rest, as a real line would: a reader of a terminal must not wait, because it looks for an
// escape sequence.
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

// Flush waits until all output is written, or ctx ends.
func (s *Serial) Flush(ctx context.Context) error { return s.out.flush(ctx) }

// Drain makes Feed take nothing, so that the state does not change.
func (s *Serial) Drain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = true
	return nil
}

// Resume ends Drain, and sets the interrupt line.
func (s *Serial) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = false
	s.asserted = s.cause() != iirNone
	return s.line.Set(s.asserted)
}

// Close writes the remaining output, then ends the writer's goroutine. It waits for the writer; if that
// may block for ever, its owner must unblock it.
func (s *Serial) Close() error {
	s.out.close()
	return nil
}

// Read reads registers. An access of several bytes reads several registers, as on a PC.
func (s *Serial) Read(off uint64, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range p {
		p[i] = s.read(off + uint64(i))
	}
	return s.update()
}

// Write sets registers. An access of several bytes sets several registers.
func (s *Serial) Write(off uint64, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range p {
		s.write(off+uint64(i), b)
	}
	return s.update()
}

// SerialState is the state of a Serial: every register, the receiver's FIFO and backlog, and whether
// the interrupt of an empty transmitter is pending. If IER is wrong, a restored console prints nothing;
// if a received byte is lost whose interrupt the guest has seen, it gets no more input.
//
// The transmitter has no state: output of the guest goes to the writer at once.
type SerialState struct {
	IER, FCR, LCR, MCR, LSR, MSR uint8 // LSR: only the error bits; FCR: only the bits that are stored
	Scratch                      uint8
	DivisorL, DivisorH           uint8
	Empty                        uint8 // 1: the interrupt of an empty transmitter is pending
	RxLen                        uint16
	Rx                           [serialFIFO]uint8
	BacklogLen                   uint16
	Backlog                      [serialBacklog]uint8
}

// Tag returns the tag of the section in the state file.
func (*Serial) Tag() string { return "SERIAL" }

// State returns the state for a checkpoint.
func (s *Serial) State() SerialState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Restore sets the state. The interrupt line follows at Resume.
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
		return badState("a serial port cannot have %d bytes in a FIFO of %d, and %d in the backlog", r.RxLen,
			capacity,
			r.BacklogLen)
	case r.IER&^ierMask != 0, r.MCR&^mcrMask != 0, r.LSR&^lsrErrors != 0, r.Empty > 1,
		r.FCR&^(fcrEnable|fcrTrigger) != 0, r.FCR != 0 && r.FCR&fcrEnable == 0:
		return badState("a serial port cannot have IER %#x, FCR %#x, MCR %#x, LSR %#x", r.IER, r.FCR, r.MCR,
			r.LSR)
	}
	return nil
}
