package device

import "sync"

// Registers of hardware-reduced ACPI, one byte each (ACPI 6.5, 4.8.3.7 and 4.8.4.6). The FADT must
// contain their ports, and the DSDT's \_S5 package must have [SleepTypeS5] as its first element.
const (
	PowerControl = 0 // sleep control
	PowerStatus  = 1 // sleep status
	PowerReset   = 2 // reset
	PowerSize    = 3

	SleepTypeS5 = 5 // SLP_TYP of soft off, the only sleep state
	ResetValue  = 1 // RESET_VALUE of the FADT

	sleepTypeShift = 2
	sleepTypeMask  = 7 << sleepTypeShift
	sleepEnable    = 1 << 5
)

// Power has the registers by which a guest with ACPI switches its machine off or resets it.
type Power struct {
	mu    sync.Mutex // guards state
	state PowerState
}

// NewPower makes the registers.
func NewPower() *Power { return &Power{} }

// Read returns the sleep type last written for the control register, and 0 for the others: the wake
// status is always clear, because a machine that goes to sleep ends.
func (w *Power) Read(off uint64, p []byte) error {
	clear(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if off == PowerControl {
		p[0] = w.state.Control
	}
	return nil
}

// Write ends the machine with ErrPowerOff or ErrReset if the guest requests that.
func (w *Power) Write(off uint64, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(p) != 1:
		return nil // byte registers
	case off == PowerReset && p[0] == ResetValue:
		return ErrReset
	case off != PowerControl:
		return nil
	}
	w.state.Control = p[0] & sleepTypeMask // the enable bit reads as zero
	if p[0]&(sleepTypeMask|sleepEnable) == SleepTypeS5<<sleepTypeShift|sleepEnable {
		return ErrPowerOff
	}
	return nil
}

// PowerState is the state of Power.
type PowerState struct {
	Control uint8 // the sleep type last written
}

// Tag returns the tag of the section in the state file.
func (*Power) Tag() string { return "ACPIPWR" }

// State returns the state for a checkpoint.
func (w *Power) State() PowerState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Restore sets the state.
func (w *Power) Restore(s PowerState) error {
	if s.Control&^sleepTypeMask != 0 {
		return badState("the sleep control register cannot be %#x", s.Control)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	return nil
}
