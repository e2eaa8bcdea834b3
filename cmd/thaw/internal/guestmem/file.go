package guestmem

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// file is a regular file, open for reading, that has to stay as it is while it is read.
type file struct {
	*os.File
	path   string
	size   int64
	before os.FileInfo
}

// openFile opens a regular file. It does not wait where path is a FIFO.
func openFile(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &file{f, path, st.Size(), st}, nil
}

// head returns the first bytes of the file.
func (f *file) head() ([]byte, error) {
	b := make([]byte, headBytes)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

// ReadAt reads bytes of the file. That it was written to meanwhile is an error, because the memory of a
// machine is that of one moment. One that was removed or replaced is still as it was.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if changed := f.changed(); changed != nil {
		return 0, changed
	}
	return n, err
}

// changed is the error of a file that was written to since it was opened.
func (f *file) changed() error {
	now, err := os.Stat(f.path)
	switch {
	case err != nil || !os.SameFile(f.before, now):
	case now.Size() != f.before.Size():
		return fmt.Errorf("%s changed while it was read: its size from %d to %d bytes", f.path,
			f.before.Size(), now.Size())
	case now.ModTime() != f.before.ModTime():
		return fmt.Errorf("%s was written to while it was read", f.path)
	}
	return nil
}

// eachData calls fn for each part of the file between from and end that is not a hole, ascending. Holes are
// never read, so a file that was cut or punched meanwhile is noticed here.
func (f *file) eachData(from, end int64, fn func(from, end int64)) error {
	if err := f.walkData(from, end, fn); err != nil {
		return err
	}
	return f.changed()
}

// walkData is eachData of whatever the file is now.
func (f *file) walkData(from, end int64, fn func(from, end int64)) error {
	end = min(end, f.size)
	for from < end {
		start, err := unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if errors.Is(err, unix.EINVAL) {
			fn(from, end) // a file system without holes
			return nil
		}
		if err != nil {
			return fmt.Errorf("find holes of %s: %w", f.path, err)
		}
		if start >= end {
			return nil
		}
		hole, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find holes of %s: %w", f.path, err)
		}
		hole = min(max(hole, start+1), end)
		fn(start, hole)
		from = hole
	}
	return nil
}

// runs gathers bytes of an image as ascending runs of pages. They come in ascending order.
type runs []Run

func (r *runs) add(from, end int64) {
	first, last := uint64(from)/PageSize, uint64(roundUp(end))/PageSize
	if n := len(*r); n > 0 && (*r)[n-1].First+(*r)[n-1].Count >= first {
		(*r)[n-1].Count = max(last, (*r)[n-1].First+(*r)[n-1].Count) - (*r)[n-1].First
	} else if last > first {
		*r = append(*r, Run{first, last - first})
	}
}

// memFile makes a regular file without a name, of which nothing stays; it lasts until it is closed.
func memFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd)), nil
}
