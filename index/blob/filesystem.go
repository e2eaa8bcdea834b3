package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FileSystem has the operations that a Dir uses, one step at a time. The host's is what
// [OpenDir] takes; another one (tests/blobtest/crashfs) shows the effect of the steps when the power
// fails between them.
type FileSystem interface {
	// Create makes a new file to be written; it fails if the path exists.
	Create(path string) (File, error)
	// Open opens a file for reading.
	Open(path string) (File, error)
	// MoveNew renames a file unless the new path exists: ErrExists then.
	MoveNew(from, to string) error
	Remove(path string) error
	Mkdir(path string) error
	// SyncDir makes changes of the names in a directory durable.
	SyncDir(path string) error
	Stat(path string) (fs.FileInfo, error)
	Lstat(path string) (fs.FileInfo, error)
	WalkDir(root string, fn fs.WalkDirFunc) error
}

// File is an open file. What was written is durable after Sync; the name is not (SyncDir).
type File interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Stat() (fs.FileInfo, error)
}

// hostFiles is the host's file system.
type hostFiles struct{}

var _ FileSystem = hostFiles{}

// Create implements FileSystem.
func (hostFiles) Create(path string) (File, error) {
	return hostFile(os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600))
}

// Open implements FileSystem.
func (hostFiles) Open(path string) (File, error) { return hostFile(os.Open(path)) }

// hostFile keeps a nil *os.File from becoming a File that is not nil.
func hostFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// MoveNew implements FileSystem. Where the file system has no such rename, link(2) refuses an
// existing name as well.
func (hostFiles) MoveNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		if err = os.Link(from, to); err == nil {
			return os.Remove(from)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w (%w)", ErrExists, err)
	}
	return err
}

// Remove implements FileSystem.
func (hostFiles) Remove(path string) error { return os.Remove(path) }

// Mkdir implements FileSystem.
func (hostFiles) Mkdir(path string) error { return os.Mkdir(path, 0o700) }

// SyncDir implements FileSystem.
func (hostFiles) SyncDir(path string) error { return SyncDir(path) }

// SyncDir makes changes of the names in a directory of the host durable.
func SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Stat implements FileSystem.
func (hostFiles) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

// Lstat implements FileSystem.
func (hostFiles) Lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }

// WalkDir implements FileSystem.
func (hostFiles) WalkDir(root string, fn fs.WalkDirFunc) error { return filepath.WalkDir(root, fn) }
