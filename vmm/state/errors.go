package state

import (
	"fmt"
	"strings"
)

// HostError says that this host cannot run a saved machine as it was.
type HostError struct {
	What     string
	Features []string // of the CPU or of KVM, that the machine was told to have and this host lacks
}

func (e *HostError) Error() string {
	s := "this host cannot run the machine: " + e.What
	if len(e.Features) > 0 {
		s += ": " + strings.Join(e.Features, ", ")
	}
	return s
}

// ParentError says that a differential checkpoint lacks a parent.
type ParentError struct{ Dir, Parent, Why string }

func (e *ParentError) Error() string {
	return fmt.Sprintf("%s has its other pages from %s: %s", e.Dir, e.Parent, e.Why)
}

// FileError says that a state file is not what it should be: truncated, damaged, of another
// version.
type FileError struct{ What string }

func (e *FileError) Error() string { return "state file: " + e.What }

func badState(format string, args ...any) error { return &FileError{fmt.Sprintf(format, args...)} }
