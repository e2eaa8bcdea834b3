package device

import "sync"

// Registers of hardware-reduced ACPI, one byte each (ACPI 6.5, 4.8.3.7 and 4.8.4.6). The FADT must
// name them, and the DSDT's \_S5 package must have [SleepTypeS5] as its first element.
const (
	PowerControl = 0 // sleep control
	PowerStatus  = 1 // sleep status
	PowerReset   = 2 // reset
	PowerSize    = 3

	SleepTypeS5 = 5 // SLP_TYP of soft off, the only sleep there is
	ResetValue  = 1 // RESET_VALUE of the FADT

	sleepTypeShift = 2
	sleepTypeMask  = 7 << sleepTypeShift
	sleepEnable    = 1 << 5
)

// Power is how a guest with ACPI switches its machine off and resets it.
type Power struct {
	mu    sync.Mutex // guards state
	state PowerState
}

// NewPower makes the registers.
func NewPower() *Power { return &Power{} }

// Read returns the sleep type last written; there is nothing else to read. A machine that has slept
// is gone, so the wake status is always clear.
func (w *Power) Read(off uint64, p []byte) error {
	clear(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if off == PowerControl {
		p[0] = w.state.Control
	}
	return nil
}

// Write ends the machine when soft off or a reset is asked for.
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
