package device

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
	capacity := uint16(1)
	if r.FCR&fcrEnable != 0 {
		capacity = serialFIFO
	}
	switch {
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
