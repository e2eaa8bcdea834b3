package vmm

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// fileSystem is all that a save asks of a file system. Tests make each of its calls fail.
type fileSystem interface {
	MkdirTemp(dir, pattern string) (string, error)
	Create(path string) (outFile, error)
	Rename(from, to string) error // refused where something is
	Replace(from, to string) error
	SyncDir(path string) error
	RemoveAll(path string) error
}

// outFile is a new file, open for writing.
type outFile interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// hostFiles is the operating system's.
type hostFiles struct{}

// MkdirTemp: what it holds is a guest's memory: nobody else's, whatever the
// umask.
func (hostFiles) MkdirTemp(dir, pattern string) (string, error) { return os.MkdirTemp(dir, pattern) }

func (hostFiles) Create(path string) (outFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Rename: NOREPLACE, for an empty directory of that name is somebody's too.
func (hostFiles) Rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (hostFiles) Replace(from, to string) error { return os.Rename(from, to) }

func (hostFiles) SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (hostFiles) RemoveAll(path string) error { return os.RemoveAll(path) }
