package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Errors that callers decide on. Drivers wrap them with the operation and the name.
var (
	ErrExists   = errors.New("blob exists already")
	ErrNotFound = errors.New("no such blob")
	ErrName     = errors.New("invalid blob name")
	// ErrReadOnly is returned by Create and Remove if the store is open for reading only.
	ErrReadOnly = errors.New("the blob store is open for reading only")
	// ErrClosed is returned by a Writer after its Commit or Abort.
	ErrClosed = errors.New("blob writer is closed")
)

// Store keeps blobs. All methods may be called by many goroutines at once.
type Store interface {
	// Create begins a blob. Nothing is visible under name before Commit. It may return ErrExists
	// at once if the name is taken; Commit always does.
	Create(ctx context.Context, name string) (Writer, error)
	// Open returns access to a committed blob; ErrNotFound if there is none. After its blob was
	// removed an Object stays readable until it is closed, or fails. It never returns other bytes.
	Open(ctx context.Context, name string) (Object, error)
	// List returns the committed blobs whose names begin with prefix, sorted by name. If prefix ends with
	// a slash, what is odd directly below it is among them.
	List(ctx context.Context, prefix string) ([]Info, error)
	// Remove deletes a blob, durably; ErrNotFound if there is none.
	Remove(ctx context.Context, name string) error
}

// Info is one line of a listing.
type Info struct {
	Name string
	Size int64 // in bytes
	// Tag distinguishes the blob from every one with other bytes that had or will have its name: the same
	// name and tag in two listings mean the same bytes. Empty if the driver does not know.
	Tag string
	// Odd is something that has the name of a blob and is none, as a directory or a link where the
	// driver stores files. It cannot be opened, removed or replaced.
	Odd bool
}

// Writer takes the bytes of one new blob, in order. It is used by one goroutine. After an error of
// Write the only sensible call is Abort.
type Writer interface {
	io.Writer
	// Commit makes the blob durable and visible. After an error nothing is visible, and Abort is
	// still allowed (and does nothing if Commit cleaned up).
	Commit() error
	// Abort abandons the blob. It is allowed, and does nothing, after Commit: it can be deferred.
	Abort() error
}

// Object is an open blob. ReadAt may be called by many goroutines at once and returns all
// bytes asked for or an error (io.EOF when the range goes beyond the end).
type Object interface {
	io.ReaderAt
	Size() int64
	Close() error
}

// Dropper is a Store over the host's page cache.
type Dropper interface {
	// Drop evicts what the page cache holds of the blob, so that the next read is a cold one.
	Drop(ctx context.Context, name string) error
}

// Drop evicts a blob from the host's page cache, where the store has one.
func Drop(ctx context.Context, s Store, name string) error {
	if d, ok := s.(Dropper); ok {
		return d.Drop(ctx, name)
	}
	return nil
}

// Tagged is an Object that knows what a listing says of its bytes.
type Tagged interface {
	// Tag is Info.Tag of the blob that is open; empty if it is not known.
	Tag() string
}

// InfoOpener is a Store that opens a blob of which the caller has a line of a listing, without asking
// whoever stores it.
type InfoOpener interface {
	// OpenInfo returns access to the blob with the name, size and tag of a listing. Whether it is still
	// there, only reads tell: they fail with ErrNotFound if it is not, or if another one is there.
	OpenInfo(Info) (Object, error)
}

// Medium describes the device of a blob store to its readers. Zero: a disk of this host, behind its
// page cache.
type Medium struct {
	// Latency is what a read costs besides its bytes, if it does not follow the read before it.
	Latency time.Duration
	// Parallel is how many reads at once are served better than one after another.
	Parallel int
}

// Describer is a Store or an Object that knows its medium.
type Describer interface {
	Medium() Medium
}

// MediumOf returns the medium of a Store or Object, if that knows it.
func MediumOf(x any) Medium {
	if d, ok := x.(Describer); ok {
		return d.Medium()
	}
	return Medium{}
}

// HighLatency says whether a read costs so much that it should also bring what may be needed next.
func (m Medium) HighLatency() bool { return m.Latency >= 200*time.Microsecond }

// maxName bounds a blob's name, in bytes.
const maxName = 512

// CheckName says whether name may name a blob: 1 to 512 bytes, parts of [A-Za-z0-9._-] between
// single slashes, no part beginning with a dot. So every name is a relative path without surprises
// on any file system, a key without escapes in any object store, and never a temporary file.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: %q: must have 1 to %d bytes", ErrName, name, maxName)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' {
			return fmt.Errorf("%w: %q: empty part or leading dot", ErrName, name)
		}
		if strings.Trim(part, nameBytes) != "" {
			return fmt.Errorf("%w: %q: other bytes than [A-Za-z0-9._-]", ErrName, name)
		}
	}
	return nil
}

// nameBytes are what a part of a name may have.
const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
