package device

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const sectorSize = 512

// storage stores the bytes of a disk. It is a file, except in tests.
type storage interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when everything written is on the medium.
	Sync() error
	// Discard drops the contents of a range, which are undefined afterwards.
	Discard(off, size int64) error
	// Zero makes a range read as zeros, by a hole if unmap allows it.
	Zero(off, size int64, unmap bool) error
	// Changed returns the time of the last write.
	Changed() (time.Time, error)
	Close() error
}

// Disk is a file or a block device, the storage of a Block.
type Disk struct {
	storage  storage
	name     string
	sectors  uint64
	readOnly bool
}

// OpenDisk opens a disk and locks it by flock(2): exclusively, or shared if it is read-only. The lock
// ends when the file is closed. The size must be a multiple of 512 bytes.
func OpenDisk(path string, readOnly bool) (*Disk, error) {
	flags, lock, use := os.O_RDWR, unix.LOCK_EX, "in use"
	if readOnly {
		flags, lock, use = os.O_RDONLY, unix.LOCK_SH, "being written"
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	size, err := diskSize(f)
	if err == nil {
		if err = unix.Flock(int(f.Fd()), lock|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%s by another process, which holds its lock (flock)", use)
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
	return &Disk{storage: &fileStorage{f}, name: filepath.Base(path),
		sectors: uint64(size) / sectorSize, readOnly: readOnly}, nil
}

// Close closes a disk that did not become part of a machine.
func (d *Disk) Close() error { return d.storage.Close() }

func diskSize(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if m := st.Mode(); !m.IsRegular() && m.Type() != os.ModeDevice {
		return 0, fmt.Errorf("it is neither a file nor a block device (%s)", m)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if size == 0 || size%sectorSize != 0 {
		return 0, fmt.Errorf("it has %d bytes, and must have a multiple of %d", size, sectorSize)
	}
	return size, nil
}

// fileStorage is a storage in a file.
type fileStorage struct{ *os.File }

func (f *fileStorage) Sync() error {
	return again(func() error { return unix.Fdatasync(int(f.Fd())) })
}

// again repeats a system call that a signal of the Go runtime has interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f *fileStorage) Discard(off, size int64) error {
	err := f.allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a discard is only a hint
	}
	return err
}

func (f *fileStorage) Zero(off, size int64, unmap bool) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if unmap {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	err := f.allocate(mode, off, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return writeZeros(f, off, size)
	}
	return err
}

func writeZeros(w io.WriterAt, off, size int64) error {
	zeros := make([]byte, min(size, blockBuffer))
	for size > 0 {
		n := min(size, int64(len(zeros)))
		if _, err := w.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off, size = off+n, size-n
	}
	return nil
}

func (f *fileStorage) allocate(mode uint32, off, size int64) error {
	return again(func() error { return unix.Fallocate(int(f.Fd()), mode, off, size) })
}

func (f *fileStorage) Changed() (time.Time, error) {
	st, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return st.ModTime(), nil
}
