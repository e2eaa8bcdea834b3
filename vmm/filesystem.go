package vmm

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// fileSystem has the file system calls of a checkpoint. Tests make each of them fail.
type fileSystem interface {
	MkdirTemp(dir, pattern string) (string, error)
	Create(path string) (outFile, error)
	Rename(from, to string) error // fails if to exists
	Replace(from, to string) error
	SyncDir(path string) error
	RemoveAll(path string) error
	Lock(f *os.File) error // exclusive, until f is closed; EWOULDBLOCK: another process has the lock
}

// outFile is a new file, open for writing.
type outFile interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// hostFiles is the fileSystem of the operating system.
type hostFiles struct{}

// MkdirTemp makes the directory with mode 0700, whatever the umask is: it will hold a guest's memory.
func (hostFiles) MkdirTemp(dir, pattern string) (string, error) { return os.MkdirTemp(dir, pattern) }

func (hostFiles) Create(path string) (outFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Rename uses RENAME_NOREPLACE: rename(2) alone would replace an empty directory that somebody else made.
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

func (hostFiles) Lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
