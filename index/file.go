package index

import (
	"context"
	"errors"
)

// File is an open file of a checkpoint, one beside its memory. ReadAt may be called by many
// goroutines at once.
type File struct{}

// OpenFile opens a file of a checkpoint ("state", "working-set", ...) for reading in parts.
func (s *Store) OpenFile(ctx context.Context, name, file string) (*File, error) {
	return nil, errors.ErrUnsupported
}

// Size of the file, in bytes.
func (f *File) Size() int64 { return 0 }

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return 0, errors.ErrUnsupported }

// Close lets go of the file.
func (f *File) Close() error { return nil }

// ReadFile gives a whole file of a checkpoint.
func (s *Store) ReadFile(ctx context.Context, name, file string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
