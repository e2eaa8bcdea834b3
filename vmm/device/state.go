package device

import "fmt"

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
