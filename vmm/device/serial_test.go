package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
)

// uart is a UART as its driver sees it, with a terminal that keeps what comes.
type uart struct {
	*Serial
	t    testing.TB
	line *fakeLine
	out  *bytes.Buffer
}

func newUART(t testing.TB) *uart {
	u := &uart{t: t, line: newFakeLine(), out: new(bytes.Buffer)}
	u.Serial = NewSerial(u.line, u.out, quiet)
	t.Cleanup(func() { check(t, u.Close()) })
	check(t, u.Resume())
	return u
}

func (u *uart) in(off uint64) byte {
	u.t.Helper()
	var p [1]byte
	check(u.t, u.Read(off, p[:]))
	return p[0]
}

func (u *uart) set(off uint64, v byte) {
	u.t.Helper()
	check(u.t, u.Write(off, []byte{v}))
}

func (u *uart) feed(s string) {
	u.t.Helper()
	if n, err := u.Feed([]byte(s)); n != len(s) || err != nil {
		u.t.Fatalf("%d of %d bytes taken: %v", n, len(s), err)
	}
}

// wants compares the cause in IIR and the line.
func (u *uart) wants(iir byte, what string) {
	u.t.Helper()
	level, _ := u.line.get()
	if got := u.in(serialIIR); got&^iirFIFO != iir || level != (iir != iirNone) {
		u.t.Errorf("%s: IIR %#x, line %v, expected %#x", what, got, level, iir)
	}
}

func TestSerialRegisters(t *testing.T) {
	u := newUART(t)
	for off, want := range []byte{0, 0, iirNone, 0, 0, 0x60, 0xb0, 0} {
		if got := u.in(uint64(off)); got != want {
			t.Errorf("register %d: %#x, expected %#x", off, got, want)
		}
	}
	for _, c := range []struct{ off, write, want byte }{
		{serialIER, 0xff, 0x0f}, {serialIER, 0, 0},
		{serialLCR, 0x03, 0x03},
		{serialMCR, 0xff, 0x1f}, {serialMCR, 0x0b, 0x0b},
		{serialScratch, 0xa5, 0xa5},
		{serialLSR, 0xff, 0x60},
		{serialMSR, 0, 0xb4},         // the end of ringing, from the loop that MCR was in
		{serialMSR, 0x0f, 0xb0},      // read, so gone
		{serialFCR, 0x01, 0xc1},      // reads as IIR
		{serialFCR, 0xc0, 0x01},      // nothing without the enable bit
		{serialLCR, 0x83, 0x83},      // from here on the divisor's
		{serialDivisorL, 0x01, 0x01}, // 115200 baud
		{serialDivisorH, 0x02, 0x02},
		{serialLCR, 0x03, 0x03},
		{serialIER, 0, 0},
	} {
		u.set(uint64(c.off), c.write)
		if got := u.in(uint64(c.off)); got != c.want {
			t.Errorf("register %d after %#x: %#x, expected %#x", c.off, c.write, got, c.want)
		}
	}
	u.set(serialLCR, 0x80)
	if u.in(serialDivisorL) != 1 || u.in(serialDivisorH) != 2 {
		t.Error("the divisor is another")
	}
	u.set(serialLCR, 3)
	// Several registers at once, and what lies behind the last.
	var p [4]byte
	check(t, u.Read(serialLCR, p[:]))
	if p != [4]byte{0x03, 0x0b, 0x60, 0xb0} {
		t.Errorf("four registers: %x", p)
	}
	check(t, u.Read(serialScratch, p[:2]))
	if p[0] != 0xa5 || p[1] != 0xff {
		t.Errorf("behind the last register: %x", p[:2])
	}
	check(t, u.Write(serialMSR, []byte{0, 7, 9}))
	if u.in(serialScratch) != 7 {
		t.Error("a write of several registers")
	}
}

func TestSerialTransmit(t *testing.T) {
	u := newUART(t)
	for _, b := range []byte("hello") {
		if u.in(serialLSR)&(lsrTHRE|lsrTEMT) != lsrTHRE|lsrTEMT {
			t.Error("the transmitter is not empty")
		}
		u.set(serialData, b)
	}
	check(t, u.Flush(t.Context()))
	if got := u.out.String(); got != "hello" {
		t.Errorf("%q", got)
	}
}

// The interrupt of an empty transmitter, as Linux tests for it in serial8250_do_startup.
func TestSerialTransmitInterrupt(t *testing.T) {
	u := newUART(t)
	for range 2 {
		u.set(serialIER, ierTHRI)
		u.wants(iirTHRI, "enabled")
		u.wants(iirNone, "told")
		u.set(serialIER, 0)
		u.set(serialIER, ierTHRI)
		u.wants(iirTHRI, "enabled again")
		u.set(serialIER, ierTHRI)
		u.wants(iirNone, "was enabled")
		u.set(serialData, 'x')
		u.wants(iirTHRI, "empty again")
		u.set(serialData, 'x')
		u.set(serialIER, 0)
		u.wants(iirNone, "disabled")
	}
	u.set(serialIER, ierTHRI)
	_, before := u.line.get()
	u.in(serialIIR)
	u.set(serialData, 'x')
	if _, after := u.line.get(); after != before+1 {
		t.Error("no new edge for a controller that wants edges")
	}
}

func TestSerialReceive(t *testing.T) {
	u := newUART(t)
	u.feed("ab")
	u.wants(iirNone, "not enabled")
	u.set(serialIER, ierRDI|ierTHRI)
	u.wants(iirRDI, "comes before the transmitter")
	if u.in(serialLSR)&lsrDR == 0 || u.in(serialData) != 'a' {
		t.Error("a")
	}
	u.wants(iirRDI, "one more")
	if u.in(serialData) != 'b' || u.in(serialLSR)&lsrDR != 0 {
		t.Error("b")
	}
	u.wants(iirTHRI, "then the transmitter")
	if u.in(serialData) != 0 {
		t.Error("something out of nothing")
	}
	u.set(serialIER, ierRDI)
	for trigger, level := range map[byte]int{0x01: 1, 0x41: 4, 0x81: 8, 0xc1: 14} {
		u.set(serialFCR, trigger|fcrClearRx)
		for i := range 20 {
			u.feed("x")
			want := byte(iirTimeout)
			if i+1 >= level {
				want = iirRDI
			}
			u.wants(want, "trigger")
		}
		u.set(serialFCR, trigger|fcrClearRx)
		if n := u.state.RxLen; n != 4 {
			t.Errorf("%d bytes left of 20", n)
		}
		u.set(serialFCR, trigger|fcrClearRx)
		u.wants(iirNone, "cleared")
	}
	u.feed("xyz")
	u.set(serialFCR, 0) // changes the mode and so clears; the backlog moves up
	u.wants(iirNone, "disabled")
}

// Input that the guest does not read yet waits; what does not fit is the caller's to keep.
func TestSerialBacklog(t *testing.T) {
	u := newUART(t)
	u.set(serialFCR, fcrEnable)
	var sent, got []byte
	next := byte(0)
	offer := func(n int) (taken int) {
		p := make([]byte, n)
		for i := range p {
			p[i] = next + byte(i)
		}
		taken, err := u.Feed(p)
		check(t, err)
		sent = append(sent, p[:taken]...)
		next += byte(taken)
		return taken
	}
	if n := offer(2000); n != serialBacklog {
		t.Errorf("%d bytes taken", n)
	}
	if n := offer(100); n != serialFIFO {
		t.Errorf("%d bytes taken after the FIFO is filled", n)
	}
	if n := offer(1); n != 0 {
		t.Error("taken though there is no room")
	}
	got = append(got, u.in(serialData))
	if n := offer(100); n != 1 {
		t.Errorf("%d bytes taken", n)
	}
	// Nothing is taken while the state is being saved.
	check(t, u.Drain())
	got = append(got, u.in(serialData))
	if n := offer(1); n != 0 {
		t.Error("taken while drained")
	}
	check(t, u.Resume())
	if n := offer(1); n != 1 {
		t.Errorf("%d bytes taken after the drain", n)
	}
	for u.in(serialLSR)&lsrDR != 0 {
		got = append(got, u.in(serialData))
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrive of %d, or others", len(got), len(sent))
	}
}

// As Linux finds a UART: autoconfig in 8250_port.c.
func TestSerialProbe(t *testing.T) {
	u := newUART(t)
	u.set(serialIER, 0)
	if u.in(serialIER) != 0 {
		t.Error("IER")
	}
	u.set(serialIER, 0x0f)
	if u.in(serialIER)&0x0f != 0x0f {
		t.Error("IER")
	}
	u.set(serialIER, 0)
	u.set(serialMCR, mcrLoop|0x0a)
	if got := u.in(serialMSR) & 0xf0; got != 0x90 {
		t.Errorf("loop: %#x", got)
	}
	u.set(serialMCR, 0)
	u.set(serialFCR, fcrEnable)
	if got := u.in(serialIIR) >> 6; got != 3 {
		t.Errorf("not a 16550A: %d", got)
	}
	u.set(serialFCR, fcrEnable|0x20) // the 64-byte FIFO of a 16750
	if got := u.in(serialIIR) >> 5; got != 6 {
		t.Errorf("not a 16550A: %d", got)
	}
	u.set(serialIER, 0x40) // a bit of Intel's XScale
	if u.in(serialIER)&0x40 != 0 {
		t.Error("an XScale")
	}
}

func TestSerialLoop(t *testing.T) {
	u := newUART(t)
	u.set(serialFCR, fcrEnable)
	u.set(serialIER, ierRDI|ierRLSI)
	u.set(serialMCR, mcrLoop)
	u.feed("line") // is cut off meanwhile
	for i := range byte(serialFIFO) {
		u.set(serialData, i)
	}
	u.wants(iirRDI, "loop")
	u.set(serialData, 99)
	u.wants(iirRLSI, "overrun")
	if got := u.in(serialLSR); got != lsrDR|lsrOE|lsrTHRE|lsrTEMT {
		t.Errorf("LSR %#x", got)
	}
	u.wants(iirRDI, "overrun told")
	for i := range byte(serialFIFO) {
		if got := u.in(serialData); got != i {
			t.Errorf("%d comes round as %d", i, got)
		}
	}
	u.wants(iirNone, "empty")
	u.set(serialFCR, 0)
	u.set(serialData, 1)
	u.set(serialData, 2) // takes the place of the first
	if u.in(serialLSR)&lsrOE == 0 || u.in(serialData) != 2 {
		t.Error("overrun without FIFO")
	}
	u.set(serialMCR, 0)
	for _, want := range []byte("line") {
		if got := u.in(serialData); got != want {
			t.Errorf("%q after the loop, expected %q", got, want)
		}
	}
	check(t, u.Flush(t.Context()))
	if u.out.Len() != 0 {
		t.Errorf("the loop leaks %q", u.out)
	}
}

func TestSerialModem(t *testing.T) {
	u := newUART(t)
	u.set(serialIER, ierMSI)
	u.wants(iirNone, "nothing has changed")
	u.set(serialMCR, mcrLoop)
	u.wants(iirMSI, "all lines down")
	if got := u.in(serialMSR); got != 0x0b {
		t.Errorf("MSR %#x", got)
	}
	u.wants(iirNone, "told")
	u.set(serialMCR, mcrLoop|mcrOut1)
	if got := u.in(serialMSR); got != msrRI {
		t.Errorf("MSR %#x when ringing begins", got)
	}
	u.set(serialMCR, mcrLoop|mcrDTR)
	if got := u.in(serialMSR); got != msrDSR|0x06 {
		t.Errorf("MSR %#x when ringing ends", got)
	}
}

// Nothing that a guest does can tell whether the device was saved and restored meanwhile.
func TestSerialRestoreIsInvisible(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	a, b := newUART(t), newUART(t)
	for step := range 20000 {
		off, v := r.Uint64N(8), byte(r.Uint32())
		if off == serialLCR && r.IntN(4) > 0 {
			v &^= lcrDLAB
		}
		switch n := r.IntN(10); {
		case n < 4:
			a.set(off, v)
			b.set(off, v)
		case n < 8:
			if x, y := a.in(off), b.in(off); x != y {
				t.Fatalf("step %d: register %d reads %#x and %#x", step, off, x, y)
			}
		case n < 9:
			p := make([]byte, r.IntN(40))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			x, err := a.Feed(p)
			y, err2 := b.Feed(p)
			if check(t, errors.Join(err, err2)); x != y {
				t.Fatalf("step %d: %d and %d bytes taken", step, x, y)
			}
		case r.IntN(20) == 0:
			check(t, b.Drain())
			var s SerialState
			raw, err := binary.Append(nil, le, b.State())
			check(t, err)
			_, err = binary.Decode(raw, le, &s)
			check(t, err)
			check(t, b.Flush(t.Context()))
			out := b.out
			b = newUART(t)
			b.out.Write(out.Bytes()) // what the old one has written
			check(t, b.Drain())
			check(t, b.Restore(s))
			check(t, b.Resume())
		}
		x, _ := a.line.get()
		if y, _ := b.line.get(); x != y {
			t.Fatalf("step %d: lines %v and %v", step, x, y)
		}
	}
	check(t, a.Flush(t.Context()))
	check(t, b.Flush(t.Context()))
	if !bytes.Equal(a.out.Bytes(), b.out.Bytes()) {
		t.Error("different output")
	}
}

func TestSerialBadState(t *testing.T) {
	u := newUART(t)
	for name, s := range map[string]SerialState{
		"FIFO too full":    {FCR: 1, RxLen: 17},
		"no FIFO":          {RxLen: 2},
		"backlog too full": {BacklogLen: serialBacklog + 1},
		"IER":              {IER: 0x10},
		"MCR":              {MCR: 0x20},
		"LSR":              {LSR: 0x01},
		"FCR":              {FCR: 0x03},
		"FCR not enabled":  {FCR: 0x80},
		"flag":             {Empty: 2},
	} {
		var bad *StateError
		if err := u.Restore(s); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSerialLineFails(t *testing.T) {
	u := newUART(t)
	u.line.arm(1)
	if err := u.Write(serialIER, []byte{ierTHRI}); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	u.line.arm(1)
	if err := u.Read(serialIIR, make([]byte, 1)); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	u.set(serialIER, ierRDI)
	u.line.arm(1)
	if n, err := u.Feed([]byte("x")); n != 1 || !errors.Is(err, errInjected) {
		t.Error(n, err)
	}
	u.line.arm(1)
	if err := u.Resume(); !errors.Is(err, errInjected) {
		t.Error(err)
	}
}
