package index

import (
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// Errors that callers decide on. They are wrapped with what was being done.
var (
	// ErrNotStore: the directory holds no store (or is not there).
	ErrNotStore = errors.New("not a thaw store")
	// ErrNotEmpty: a store is not made in a directory with other files, unless that is asked for.
	ErrNotEmpty = errors.New("the directory is not empty")
	// ErrLocked: another process writes to the store, or serves it.
	ErrLocked = errors.New("store is in use")
	// ErrReadOnly: the store was opened for reading only, or its file system can only be read.
	ErrReadOnly = errors.New("store is open for reading only, or on a read-only file system")
	// ErrChanged: the checkpoint of this name is another one by now.
	ErrChanged = errors.New("it has been replaced by another checkpoint")
	// ErrNotFound: no checkpoint, or no file of it, has this name.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("exists already")
	// ErrInUse: the checkpoint has open images.
	ErrInUse = errors.New("checkpoint is in use")
	// ErrOtherPack is the cause of a CorruptError for a pack in the place of another one of its number.
	ErrOtherPack = errors.New(
		"it is another pack with the same number, of a copy of the store or of another store")
	// ErrClosed: the store or image was closed.
	ErrClosed = errors.New("closed")
)

// CorruptError says which stored bytes are not what was written. Such bytes are never returned.
type CorruptError = pack.CorruptError

// VersionError says that a store has a format which this program does not know.
type VersionError struct {
	Path      string
	Got, Want int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("store %s has format version %d; this program knows %d", e.Path, e.Got, e.Want)
}

// NameError says why a name can be no checkpoint's (or no file's) name.
type NameError struct {
	Name, Why string
}

func (e *NameError) Error() string { return fmt.Sprintf("invalid name %q: %s", e.Name, e.Why) }

// ImageError says why a file can be no memory image.
type ImageError struct {
	Path, Why string
	Err       error // may be nil
}

func (e *ImageError) Error() string {
	s := fmt.Sprintf("%s is not a memory image: %s", e.Path, e.Why)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *ImageError) Unwrap() error { return e.Err }
