package device

// PowerState is the state of Power.
type PowerState struct {
	Control uint8 // the sleep type last written
}

// Tag names the section of the state file.
func (*Power) Tag() string { return "ACPIPWR" }

// State returns what is saved.
func (w *Power) State() PowerState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Restore sets it.
func (w *Power) Restore(s PowerState) error {
	if s.Control&^sleepTypeMask != 0 {
		return badState("sleep control register %#x", s.Control)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	return nil
}
