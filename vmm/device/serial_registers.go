package device

// Registers, by offset. While DLAB is set, the first two are the divisor.
const (
	serialData     = 0 // read: receiver, write: transmitter
	serialIER      = 1
	serialIIR      = 2 // read
	serialFCR      = 2 // write
	serialLCR      = 3
	serialMCR      = 4
	serialLSR      = 5
	serialMSR      = 6
	serialScratch  = 7
	serialDivisorL = 0
	serialDivisorH = 1
)

// Bits of the registers; the names are those of linux/serial_reg.h.
const (
	ierRDI  = 0x01 // received data available
	ierTHRI = 0x02 // transmitter empty
	ierRLSI = 0x04 // line status
	ierMSI  = 0x08 // modem status
	ierMask = ierRDI | ierTHRI | ierRLSI | ierMSI

	iirNone    = 0x01
	iirMSI     = 0x00
	iirTHRI    = 0x02
	iirRDI     = 0x04
	iirRLSI    = 0x06
	iirTimeout = 0x0c // received data below the trigger level
	iirFIFO    = 0xc0 // the FIFOs are in use

	fcrEnable  = 0x01
	fcrClearRx = 0x02
	fcrTrigger = 0xc0

	lcrDLAB = 0x80

	mcrDTR  = 0x01
	mcrRTS  = 0x02
	mcrOut1 = 0x04
	mcrOut2 = 0x08
	mcrLoop = 0x10
	mcrMask = 0x1f

	lsrDR     = 0x01
	lsrOE     = 0x02
	lsrErrors = 0x1e
	lsrTHRE   = 0x20
	lsrTEMT   = 0x40

	msrDelta = 0x0f
	msrTERI  = 0x04 // set only at the end of ringing, not at its start
	msrCTS   = 0x10
	msrDSR   = 0x20
	msrRI    = 0x40
	msrDCD   = 0x80
)

// rxTrigger is the number of bytes at which the receiver interrupts, by the top bits of FCR.
var rxTrigger = [4]uint16{1, 4, 8, 14}

// divisor returns the half of the divisor that is at the offset now; nil if none is.
func (r *SerialState) divisor(off uint64) *uint8 {
	switch {
	case r.LCR&lcrDLAB != 0 && off == serialDivisorL:
		return &r.DivisorL
	case r.LCR&lcrDLAB != 0 && off == serialDivisorH:
		return &r.DivisorH
	}
	return nil
}

func (s *Serial) read(off uint64) byte {
	r := &s.state
	if d := r.divisor(off); d != nil {
		return *d
	}
	switch off {
	case serialData:
		return s.pop()
	case serialIER:
		return r.IER
	case serialIIR:
		cause := s.cause()
		if cause == iirTHRI {
			r.Empty = 0 // reading acknowledges the interrupt
		}
		if r.FCR&fcrEnable != 0 {
			cause |= iirFIFO
		}
		return cause
	case serialLCR:
		return r.LCR
	case serialMCR:
		return r.MCR
	case serialLSR:
		v := r.LSR | lsrTHRE | lsrTEMT
		if r.RxLen > 0 {
			v |= lsrDR
		}
		r.LSR = 0
		return v
	case serialMSR:
		v := r.MSR
		r.MSR &^= msrDelta
		return v
	case serialScratch:
		return r.Scratch
	}
	return 0xff
}

func (s *Serial) write(off uint64, b byte) {
	r := &s.state
	if d := r.divisor(off); d != nil {
		*d = b
		return
	}
	switch off {
	case serialData:
		s.transmit(b)
	case serialIER:
		// Drivers expect an interrupt whenever they enable that of an empty transmitter.
		if b&^r.IER&ierTHRI != 0 {
			r.Empty = 1
		}
		r.IER = b & ierMask
	case serialFCR:
		s.control(b)
	case serialLCR:
		r.LCR = b
	case serialMCR:
		r.MCR = b & mcrMask
		s.modem()
		s.fill()
	case serialScratch:
		r.Scratch = b
	}
}

// transmit sends a byte to the output or, in loopback mode, to the receiver.
func (s *Serial) transmit(b byte) {
	r := &s.state
	r.Empty = 1 // the transmitter is empty again at once
	if r.MCR&mcrLoop == 0 {
		s.out.put(b)
		return
	}
	if r.RxLen == r.capacity() {
		r.LSR |= lsrOE
		if r.FCR&fcrEnable == 0 {
			r.Rx[0] = b // without FIFO the new byte replaces the old one
		}
		return
	}
	r.Rx[r.RxLen] = b
	r.RxLen++
}

// control sets the FIFO control register.
func (s *Serial) control(b byte) {
	r := &s.state
	if (b^r.FCR)&fcrEnable != 0 || b&fcrClearRx != 0 {
		r.RxLen = 0
	}
	r.FCR = 0
	if b&fcrEnable != 0 {
		r.FCR = b & (fcrEnable | fcrTrigger)
	}
	s.fill()
}

// modem sets the modem status: that of a terminal that is always connected or, in loopback mode, that
// of the control lines.
func (s *Serial) modem() {
	r := &s.state
	now := uint8(msrCTS | msrDSR | msrDCD)
	if r.MCR&mcrLoop != 0 {
		now = 0
		for _, wire := range [...]struct{ from, to uint8 }{
			{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOut1, msrRI}, {mcrOut2, msrDCD},
		} {
			if r.MCR&wire.from != 0 {
				now |= wire.to
			}
		}
	}
	delta := (now ^ r.MSR) >> 4
	if now&msrRI != 0 {
		delta &^= msrTERI
	}
	r.MSR = now | r.MSR&msrDelta | delta
}

// capacity returns how many bytes the receiver can hold.
func (r *SerialState) capacity() uint16 {
	if r.FCR&fcrEnable != 0 {
		return serialFIFO
	}
	return 1
}

// pop removes a byte from the receiver.
func (s *Serial) pop() byte {
	r := &s.state
	if r.RxLen == 0 {
		return 0
	}
	b := r.Rx[0]
	r.RxLen--
	copy(r.Rx[:r.RxLen], r.Rx[1:])
	s.fill()
	return b
}

// fill moves bytes from the backlog into the receiver. In loopback mode the receiver gets no input from
// the line.
func (s *Serial) fill() {
	r := &s.state
	if r.MCR&mcrLoop != 0 {
		return
	}
	n := copy(r.Rx[r.RxLen:r.capacity()], r.Backlog[:r.BacklogLen])
	r.RxLen += uint16(n)
	r.BacklogLen -= uint16(n)
	copy(r.Backlog[:r.BacklogLen], r.Backlog[n:])
}

// cause returns the enabled cause of an interrupt with the highest priority, as in IIR.
func (s *Serial) cause() uint8 {
	r := &s.state
	switch {
	case r.IER&ierRLSI != 0 && r.LSR&lsrErrors != 0:
		return iirRLSI
	case r.IER&ierRDI != 0 && r.RxLen > 0:
		if r.FCR&fcrEnable != 0 && r.RxLen < rxTrigger[r.FCR>>6] {
			return iirTimeout
		}
		return iirRDI
	case r.IER&ierTHRI != 0 && r.Empty != 0:
		return iirTHRI
	case r.IER&ierMSI != 0 && r.MSR&msrDelta != 0:
		return iirMSI
	}
	return iirNone
}

// update sets the level of the interrupt line.
func (s *Serial) update() error {
	level := s.cause() != iirNone
	if level == s.asserted {
		return nil
	}
	s.asserted = level
	return s.line.Set(level)
}
