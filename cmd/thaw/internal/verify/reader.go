package verify

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ReadError is a block that could not be read.
type ReadError struct {
	Op     string // "read" or "page fault"
	Offset int64  // of the block
	Err    error  // the errno
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("%s at offset %d (gfn %d): %v", e.Op, e.Offset, e.Offset/PageSize, e.Err)
}

func (e *ReadError) Unwrap() error { return e.Err }

// pread reads a block by pread(2).
func pread(f *os.File, off int64, buf []byte) error {
	if err := readFull(f, off, buf); err != nil {
		return &ReadError{"read", off, errno(err)}
	}
	return nil
}

// readFull is ReadAt; a file that is too short is an unexpected end.
func readFull(f *os.File, off int64, buf []byte) error {
	n, err := f.ReadAt(buf, off)
	switch {
	case n == len(buf):
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// errno is the error without the path around it, which the caller names.
func errno(err error) error {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return err
}

// mapping takes page faults in a mapping of the file, by system calls (see the package's
// documentation).
type mapping struct {
	f   *os.File
	mem []byte // never touched by Go code
}

func newMapping(f *os.File, size int64, order string) (*mapping, error) {
	if size != int64(int(size)) {
		return nil, unix.EFBIG
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ,
		unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	m := &mapping{f: f, mem: mem}
	advice := unix.MADV_RANDOM
	if order == Sequential {
		advice = unix.MADV_SEQUENTIAL
	}
	if err := unix.Madvise(mem, advice); err != nil {
		m.close()
		return nil, fmt.Errorf("madvise: %w", err)
	}
	return m, nil
}

// read takes the page faults of a block. The kernel says EFAULT for all that fail, so the block is
// read once more by pread(2), which says why.
func (m *mapping) read(off int64, buf []byte) error {
	err := copyOut(m.mem[off:off+int64(len(buf))], buf)
	if err == nil {
		return nil
	}
	if why := readFull(m.f, off, buf); why != nil {
		err = errno(why)
	}
	return &ReadError{"page fault", off, err}
}

// close cannot fail: the mapping is whole.
func (m *mapping) close() { _ = unix.Munmap(m.mem) }
