package pack

import (
	"errors"
	"fmt"
)

var (
	// ErrFull is returned by a Writer that can take no more: finish it and begin another pack.
	ErrFull = errors.New("pack is full")
	// ErrDead is the cause of a CorruptError for a page or record that a compaction dropped:
	// nothing refers to it, unless something is wrong.
	ErrDead = errors.New("dropped by a compaction")
	// ErrHash is the cause of a CorruptError for a page whose content does not match its hash.
	ErrHash = errors.New("content does not match its hash")
)

// CorruptError says that stored bytes are not what was written. If they could not be read at all,
// the error is that of the blob instead.
type CorruptError struct {
	Pack string // name of the pack's blob, or what stands for it
	What string // what is damaged: "footer", "slot 17", "frame 3", ...
	Err  error  // why; may be nil
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("pack %s: %s is corrupt", e.Pack, e.What)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *CorruptError) Unwrap() error { return e.Err }

// VersionError says that a pack was written by a program with another format.
type VersionError struct {
	Pack      string
	Got, Want uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("pack %s has format version %d, this program knows %d",
		e.Pack, e.Got, e.Want)
}
