package device

import (
	"errors"
	"fmt"
	"io"
)

// Memory is guest RAM at guest physical addresses. A device that gets an error of it passes it on:
// it ends the machine.
type Memory interface {
	io.ReaderAt
	io.WriterAt
}

// Line is one input of the interrupt controller. It is level-triggered: asserted until Set(false).
// Any goroutine may set it.
type Line interface {
	Set(asserted bool) error
}

// Handler is a device on a bus. off is relative to the base of the range that it was added with,
// and len(p), the size of the access, is 1, 2, 4 or 8. Several vCPUs may call it at once.
type Handler interface {
	Read(off uint64, p []byte) error
	Write(off uint64, p []byte) error // ErrPowerOff, ErrReset: the machine ends in order
}

// Ends of a machine that its guest asks for.
var (
	ErrPowerOff = errors.New("the guest switched the machine off")
	ErrReset    = errors.New("the guest reset the machine")
)

// StateError says that the state of a device, as read from a file, is not one that it can have.
type StateError struct{ What string }

func (e *StateError) Error() string { return "device state: " + e.What }

func badState(format string, args ...any) error { return &StateError{fmt.Sprintf(format, args...)} }

// flag makes a byte of a condition, as states hold it.
func flag(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}
