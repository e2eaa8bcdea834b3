package readbench

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// engine is a way to read. Safe for concurrent use.
type engine interface {
	// read brings the block at off in; it is what is timed. buf is as long as the block.
	read(off int64, buf []byte) error
	// data puts the bytes of a block that was read into buf, which was given to read.
	data(off int64, buf []byte) error
	close() error
}

// ReadError is a block that could not be read.
type ReadError struct {
	Op     string // "read" or "page fault"
	Offset int64  // of the block
	Err    error  // the errno
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("%s at offset %d (gfn %d): %v", e.Op, e.Offset, e.Offset/4096, e.Err)
}

func (e *ReadError) Unwrap() error { return e.Err }

// openEngine opens the file for a run and says how large it is.
func openEngine(c *Config) (engine, int64, error) {
	f, err := os.Open(c.File)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, 0, &ConfigError{fmt.Sprintf("%s is no regular file", c.File)}
	}
	if c.Engine == Psync || info.Size() == 0 {
		return &psync{f}, info.Size(), nil
	}
	m, err := newMapping(f, info.Size(), c.advice())
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("map %s: %w", c.File, err)
	}
	return m, info.Size(), nil
}

// psync reads by pread(2).
type psync struct{ f *os.File }

func (p *psync) read(off int64, buf []byte) error {
	if err := readFull(p.f, off, buf); err != nil {
		return &ReadError{"read", off, errno(err)}
	}
	return nil
}

func (p *psync) data(int64, []byte) error { return nil } // read put it there
func (p *psync) close() error             { return p.f.Close() }

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
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// mapping takes page faults in a mapping of the file, by system calls (see the package's
// documentation).
type mapping struct {
	f        *os.File
	mem      []byte // never touched by Go code
	populate bool   // the kernel has MADV_POPULATE_READ (5.14)
}

func newMapping(f *os.File, size int64, advice string) (*mapping, error) {
	if size != int64(int(size)) {
		return nil, unix.EFBIG
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ,
		unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	m := &mapping{f: f, mem: mem, populate: hasPopulate()}
	advices := map[string]int{
		AdviceNormal: unix.MADV_NORMAL, AdviceRandom: unix.MADV_RANDOM,
		AdviceSequential: unix.MADV_SEQUENTIAL,
	}
	if err := unix.Madvise(mem, advices[advice]); err != nil {
		return nil, errors.Join(fmt.Errorf("madvise %s: %w", advice, err), unix.Munmap(mem))
	}
	return m, nil
}

func (m *mapping) read(off int64, buf []byte) error {
	if !m.populate {
		return m.data(off, buf)
	}
	for {
		err := unix.Madvise(m.mem[off:off+int64(len(buf))], madvPopulateRead)
		switch err {
		case nil:
			return nil
		case unix.EINTR, unix.EAGAIN:
			continue // a signal for the thread; nothing was lost
		}
		return m.fault(off, buf, err)
	}
}

func (m *mapping) data(off int64, buf []byte) error {
	if err := copyOut(m.mem[off:off+int64(len(buf))], buf); err != nil {
		return m.fault(off, buf, err)
	}
	return nil
}

// fault makes the error of a page fault that failed. The kernel says EFAULT for all of them, so the
// block is read once more by pread(2), which says why.
func (m *mapping) fault(off int64, buf []byte, err error) error {
	if why := readFull(m.f, off, buf); why != nil {
		err = errno(why)
	}
	return &ReadError{"page fault", off, err}
}

func (m *mapping) close() error { return errors.Join(unix.Munmap(m.mem), m.f.Close()) }

func pageSize() int { return os.Getpagesize() }

// madvPopulateRead is MADV_POPULATE_READ of <linux/mman.h>: fault pages in for reading.
const madvPopulateRead = 22

// hasPopulate asks the kernel on a page of its own.
func hasPopulate() bool {
	page, err := unix.Mmap(-1, 0, pageSize(), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer unix.Munmap(page)
	return unix.Madvise(page, madvPopulateRead) == nil
}
