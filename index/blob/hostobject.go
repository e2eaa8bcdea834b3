package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// hostObject is a committed file of the host. It may be without its descriptor for a while. Then a mapping
// keeps the file, also if it is removed, and by that its inode number. So when it is read again, its name is
// opened; if that is another file now, or none, the mapping is read.
type hostObject struct {
	d    *descriptors
	path string
	size int64
	id   fileID

	// file is nil while it has no descriptor. kept is set before that happens for the first time.
	file atomic.Pointer[openFile]
	kept atomic.Pointer[mapping]
	// removed: the name leads to this file no more.
	removed atomic.Bool
	// used: it was read since the hand came by last.
	used atomic.Bool

	mu sync.Mutex // held while it gets its descriptor, gives it up or is closed; never over I/O

	place int  // in the ring; guarded by descriptors.mu
	gone  bool // closed; guarded by descriptors.mu
}

// fileID tells files from one another as long as they exist.
type fileID struct{ dev, ino uint64 }

// openFile is a descriptor, and how many use it: the object, and each read in progress.
type openFile struct {
	*os.File
	refs atomic.Int64
}

// acquire counts a read; false if the file is closed.
func (f *openFile) acquire() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *openFile) release() error {
	if f.refs.Add(-1) > 0 {
		return nil
	}
	return f.File.Close()
}

// open opens a file for reading.
func (d *descriptors) open(path string) (*hostObject, error) {
	d.reserve()
	f, st, err := d.openPath(path)
	if err != nil {
		d.giveBack()
		return nil, err
	}
	o := &hostObject{d: d, path: path, size: st.Size(), id: idOf(st)}
	o.file.Store(counted(f, 1))
	d.add(o)
	return o, nil
}

func counted(f *os.File, refs int64) *openFile {
	c := &openFile{File: f}
	c.refs.Store(refs)
	return c
}

// openPath opens a regular file. If there are too many open files, others give way.
func (d *descriptors) openPath(path string) (f *os.File, st fs.FileInfo, err error) {
	f, err = os.Open(path)
	for isManyFiles(err) && d.giveWay() {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, nil, err
	}
	if st, err = f.Stat(); err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: not a regular file", ErrNotFound)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

func idOf(st fs.FileInfo) fileID {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{uint64(s.Dev), s.Ino}
}

// ReadAt implements Object. It allocates nothing as long as the file has its descriptor.
func (o *hostObject) ReadAt(p []byte, off int64) (int, error) {
	f, err := o.acquire()
	if err != nil {
		return 0, err
	}
	if f == nil {
		return o.kept.Load().readAt(p, off)
	}
	n, err := readAt(f.File, p, off)
	_ = f.release() // nothing was written: there is nothing to lose
	return n, err
}

// acquire returns the open file for one read; nil if only the mapping can be read.
func (o *hostObject) acquire() (*openFile, error) {
	for {
		f := o.file.Load()
		if f == nil {
			return o.reopen()
		}
		if f.acquire() {
			if !o.used.Load() {
				o.used.Store(true)
			}
			return f, nil
		}
	}
}

// reopen gets a descriptor again. The file has none at the moment, or is closed.
func (o *hostObject) reopen() (*openFile, error) {
	if o.kept.Load() == nil {
		return nil, fmt.Errorf("read %s: %w", o.path, os.ErrClosed)
	}
	if o.removed.Load() {
		return nil, nil
	}
	o.d.reserve()
	f, st, err := o.d.openPath(o.path)
	if err == nil && idOf(st) != o.id {
		f.Close()
		err = fs.ErrNotExist
	}
	if err != nil {
		o.d.giveBack()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotFound) {
			o.removed.Store(true)
		}
		return nil, nil // whatever it is, the mapping can be read
	}
	return o.take(f), nil
}

// take makes f the file's descriptor, unless another read was quicker, and returns f for one read.
func (o *hostObject) take(f *os.File) *openFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file.Load() != nil {
		o.d.giveBack()
		return counted(f, 1)
	}
	c := counted(f, 2)
	o.file.Store(c)
	o.used.Store(true)
	o.d.add(o)
	return c
}

// park gives the descriptor up; false if the file cannot be kept without. It is called by who took the file
// out of the ring.
func (o *hostObject) park() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.file.Load()
	if f == nil {
		return true // it was closed meanwhile
	}
	if o.kept.Load() == nil {
		m, err := mapFile(f.File, o.size)
		if err != nil {
			return false
		}
		o.kept.Store(&m)
	}
	o.file.Store(nil)
	_ = f.release()
	return true
}

// Size implements Object.
func (o *hostObject) Size() int64 { return o.size }

// Close implements Object.
func (o *hostObject) Close() error {
	o.d.remove(o)
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	if f := o.file.Swap(nil); f != nil {
		errs = append(errs, f.release())
	}
	if m := o.kept.Swap(nil); m != nil {
		errs = append(errs, m.unmap())
	}
	return errors.Join(errs...)
}
