package device

import (
	"errors"
	"fmt"
	"io"
)

// Memory is guest RAM at guest physical addresses. A device returns its errors to the machine, which ends.
type Memory interface {
	io.ReaderAt
	io.WriterAt
}

// Line is one input of the interrupt controller, level-triggered: it is asserted until Set(false). Any
// goroutine may call Set.
type Line interface {
	Set(asserted bool) error
}

// Handler is a device on a bus. off is relative to the base of its range. len(p) is the size of the
// access: 1, 2, 4 or 8 bytes. Several vCPUs may call it at once.
type Handler interface {
	Read(off uint64, p []byte) error
	Write(off uint64, p []byte) error // ErrPowerOff and ErrReset end the machine normally
}

// Errors with which a guest ends its machine normally.
var (
	ErrPowerOff = errors.New("the guest switched the machine off")
	ErrReset    = errors.New("the guest reset the machine")
)

// StateError says that the state of a device, as read from a file, is not possible.
type StateError struct{ What string }

func (e *StateError) Error() string { return "device state: " + e.What }

func badState(format string, args ...any) error { return &StateError{fmt.Sprintf(format, args...)} }

// flag encodes a condition as a byte of a state.
func flag(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}
