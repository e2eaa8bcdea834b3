package device

// RNGState is the state of an RNG: no random bytes are in it.
type RNGState struct {
	Transport TransportState
	Queue     [1]QueueState
}

// Tag names the section of the state file.
func (*RNG) Tag() string { return "VIRTRNG" }

// State returns what is saved. The device must be drained.
func (r *RNG) State() RNGState {
	var s RNGState
	s.Transport = r.save(s.Queue[:])
	return s
}

// Restore sets it.
func (r *RNG) Restore(s RNGState) error { return r.load(s.Transport, s.Queue[:]) }
