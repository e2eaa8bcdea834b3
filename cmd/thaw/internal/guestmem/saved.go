package guestmem

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// PageSize is the size of a page of guest memory, in bytes.
const PageSize = 4096

// MaxSize bounds the memory of a machine, in bytes: more is a number that is wrong.
const MaxSize = 16 << 40

// Run is some pages that follow each other.
type Run struct{ First, Count uint64 }

// Memory is an image of guest memory that can be read anywhere, by many goroutines at once.
type Memory interface {
	io.ReaderAt
	// Size is in bytes, a multiple of PageSize.
	Size() int64
	// Extents returns the pages that may hold data, as ascending runs. The others are zero.
	Extents() ([]Run, error)
}

// Stream is an image of guest memory that can be read only once, from its beginning to its end.
type Stream interface {
	// Read reads it all. It calls put for the pages in the order in which they come: one or more that
	// follow each other, from the page first on. Pages that never come are zero, and of one that comes
	// twice the later one counts. The bytes belong to the caller again when put returns.
	Read(ctx context.Context, put func(first uint64, pages []byte) error) (End, error)
}

// End is what is known of a stream when it has been read.
type End struct {
	Size    int64 // of the image, in bytes, a multiple of PageSize
	Regions []Region
	Facts   Facts  // beside those that were known before
	Reading string // if not empty, why no VMM can go on from it
}

// Region says where guest-physical memory lies in the image.
type Region struct {
	GPA    uint64 `json:"gpa"`
	Bytes  uint64 `json:"bytes"`
	Offset uint64 `json:"offset"`
}

// Facts are what a format says of the machine, for info.json: a version, an architecture.
type Facts map[string]any

// Saved is a saved machine, as another program wrote it.
type Saved struct {
	// Format is the name of the format: one word, which scripts may depend on.
	Format string
	// VMM is the program that wrote it, as info.json names it; empty if the format does not tell.
	VMM string
	// Saw says what was recognised, for people.
	Saw string
	// Path is the file that the memory is in.
	Path string
	// Memory is the image; nil if it is a Stream, or a diff that needs its parent (IsDiff).
	Memory Memory
	Stream Stream
	// Regions says what the guest-physical addresses of the image are; nil if that is not known.
	Regions []Region
	// Files are the other files of the checkpoint, regular files all: name -> path. Those that are cut out of
	// a Stream are whole when it has been read; one that is empty then does not belong to it.
	Files map[string]string
	Facts Facts
	// Reading says why no VMM can go on from it: it is for reading only. Empty if one can.
	Reading string
	// Warning says what could not be checked.
	Warning string

	diff    *diff // not nil: of a diff, for Over
	closers []io.Closer
}

// Close closes the files.
func (s *Saved) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// keep makes Close close c too.
func (s *Saved) keep(c io.Closer) { s.closers = append(s.closers, c) }

// FormatError says why a file is not imported as what it looks like.
type FormatError struct {
	Path   string
	Format string // what it looks like: "an ELF core"
	Why    string
	Do     string // what to do about it; may be empty
	Err    error  // may be nil
}

func (e *FormatError) Error() string {
	s := fmt.Sprintf("%s is %s: %s", e.Path, e.Format, e.Why)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *FormatError) Unwrap() error { return e.Err }

// roundUp rounds a number of bytes up to whole pages.
func roundUp(n int64) int64 { return (n + PageSize - 1) / PageSize * PageSize }

// counted is a number of things, in words.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
