package vmm

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// disk is all that a save asks of a file system. Tests make each of its calls fail.
type disk interface {
	MkdirTemp(dir, pattern string) (string, error)
	Create(path string) (diskFile, error)
	Rename(from, to string) error // refused where something is
	Replace(from, to string) error
	SyncDir(path string) error
	RemoveAll(path string) error
}

// diskFile is a new file, open for writing.
type diskFile interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// osDisk is the operating system's.
type osDisk struct{}

// MkdirTemp implements disk. What it holds is a guest's memory: nobody else's, whatever the umask.
func (osDisk) MkdirTemp(dir, pattern string) (string, error) { return os.MkdirTemp(dir, pattern) }

// Create implements disk.
func (osDisk) Create(path string) (diskFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Rename implements disk. NOREPLACE: an empty directory of that name is somebody's too.
func (osDisk) Rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Replace implements disk.
func (osDisk) Replace(from, to string) error { return os.Rename(from, to) }

// SyncDir implements disk.
func (osDisk) SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// RemoveAll implements disk.
func (osDisk) RemoveAll(path string) error { return os.RemoveAll(path) }
