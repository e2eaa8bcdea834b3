package fs

import (
	"context"
	"fmt"
	"time"

	"github.com/thawfs/thaw/wss"
)

// RecordOptions say what Record accepts as a working set.
type RecordOptions struct {
	// Force records what was read, even if it seems that no machine read it.
	Force bool
}

// A RecordError is a record that cannot be the working set of a machine: something copied the file
// or looked at it. It is ErrNotMachine.
type RecordError struct {
	Name string
	// Why says what was read, and by whom.
	Why string
	// Readers are the threads that opened the image, the first 16 of them.
	Readers []Reader
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("record %s: %v: %s", e.Name, ErrNotMachine, e.Why)
}

// Is makes it an ErrNotMachine.
func (e *RecordError) Is(target error) bool { return target == ErrNotMachine }

// Record returns as a working set what was read since the image was last cold, up to
// Options.RecordWindow after its first open. ErrNotCold if pages came into the page cache in that time
// without being read, ErrNothing if nothing was read, a RecordError if no machine read it.
func (s *Server) Record(_ context.Context, name string, o RecordOptions) (*wss.Set, error) {
	e := s.tree.entry(name)
	if e == nil {
		return nil, fmt.Errorf("record %s: %w", name, ErrNotFound)
	}
	ep := e.epoch.Load()
	set, err := ep.set(time.Now())
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", name, err)
	}
	start := ep.base.Add(time.Duration(ep.started.Load()))
	if why := ep.readers.doubt(start, set, e.copied()); why != "" && !o.Force {
		return nil, &RecordError{Name: name, Why: why, Readers: ep.readers.names()}
	}
	return set, nil
}
