package state

import (
	"fmt"
	"strings"
)

// HostError says that this host cannot run a saved machine exactly as it was.
type HostError struct {
	What     string
	Features []string // of the CPU or of KVM, that the machine has seen and this host lacks
}

func (e *HostError) Error() string {
	s := "this host cannot run the machine: " + e.What
	if len(e.Features) > 0 {
		s += ": " + strings.Join(e.Features, ", ")
	}
	return s
}

// ParentError says that a parent of the differential checkpoint in Dir cannot be used.
type ParentError struct{ Dir, Parent, Why string }

func (e *ParentError) Error() string {
	return fmt.Sprintf("%s is a differential checkpoint and needs its parent %s: %s", e.Dir, e.Parent, e.Why)
}

// FileError says that a state file is not valid: truncated, damaged, or of an unknown version.
type FileError struct{ What string }

func (e *FileError) Error() string { return "state file: " + e.What }

func badState(format string, args ...any) error { return &FileError{fmt.Sprintf(format, args...)} }
