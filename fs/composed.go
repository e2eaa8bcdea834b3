package fs

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// composedFiles are the composed files that were opened of an image. They are closed with it.
type composedFiles struct {
	mu    sync.Mutex // held for a map access
	files map[string]*composedFile
}

// A composedFile is opened by the first who reads it; the others wait for that.
type composedFile struct {
	once sync.Once
	file File
	err  error
}

// get finds a file, and makes one that is not opened yet.
func (c *composedFiles) get(name string) *composedFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[name]
	if f == nil {
		if c.files == nil {
			c.files = map[string]*composedFile{}
		}
		f = new(composedFile)
		c.files[name] = f
	}
	return f
}

// drop makes the next reader of a file that could not be opened try again.
func (c *composedFiles) drop(name string, f *composedFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[name] == f {
		delete(c.files, name)
	}
}

// close closes all files. Nobody reads them.
func (c *composedFiles) close() error {
	var errs []error
	for name, f := range c.files {
		if f.file != nil {
			if err := f.file.Close(); err != nil {
				errs = append(errs, fmt.Errorf("close %s: %w", name, err))
			}
		}
	}
	c.files = nil
	return errors.Join(errs...)
}

// openComposed opens a composed file: the image of its checkpoint stays open, and what the file is made of
// is looked at, so that what is wrong is known before the first READ. Nothing is brought: whoever reads such
// a file copies all of it.
func (s *Server) openComposed(n *node, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	e := n.e
	out.Fh = handle(&in.InHeader)
	if in.Unique&resent != 0 && s.inherited.take(out.Fh) { // it was counted already, and not answered
		s.releasedComposed(e)
		s.ledger.closed(out.Fh)
	}
	e.mu.Lock()
	h, err := s.imageLocked(e)
	if err == nil {
		e.opens++
		s.idle.remove(e)
	}
	e.mu.Unlock()
	switch {
	case errors.Is(err, ErrNotFound):
		return fuse.ENOENT
	case err != nil:
		s.complain(e, "open "+n.name, err)
		return fuse.EIO
	}
	if _, err := s.composedOf(h, n); err != nil {
		s.releasedComposed(e)
		s.complain(e, "open", err)
		return fuse.EIO
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	s.ledger.opened(out.Fh, ledgerKey{Name: e.name, ID: e.id}, openComposed)
	return fuse.OK
}

// composedOf opens a composed file of an image if it is not open.
func (s *Server) composedOf(h *openImage, n *node) (file File, err error) {
	defer s.rescueErr("composing a file", &err)
	f := h.composed.get(n.name)
	f.once.Do(func() {
		defer func() {
			if f.err != nil {
				h.composed.drop(n.name, f)
			}
		}()
		f.err = errors.New("its maker panicked")
		f.file, f.err = n.of.composed(n.name).Open(s.ctx, h.mem, func(name string) (File, error) {
			return s.store.OpenFile(s.ctx, *h.of, name)
		})
	})
	if f.err != nil {
		return nil, fmt.Errorf("compose %s: %w", n.name, f.err)
	}
	return f.file, nil
}

// releasedComposed undoes openComposed.
func (s *Server) releasedComposed(e *entry) {
	e.mu.Lock()
	e.opens--
	idle := e.opens == 0
	if idle {
		e.epoch.Load().readers.released(time.Now())
	}
	err := s.settleLocked(e, false)
	e.mu.Unlock()
	if err != nil {
		s.complain(e, "close image", err)
	}
	if idle {
		s.rests(e)
	}
}

// readComposed answers a READ of a composed file. It counts as no READ of the machine: whoever reads the
// file copies the memory, and touches nothing.
func (s *Server) readComposed(n *node, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	size := uint64(n.size)
	if in.Offset >= size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(uint64(len(buf)), size-in.Offset)]
	if err := s.readPart(n, int64(in.Offset), buf); err != nil {
		s.metrics.readErrors.Add(1)
		s.complain(n.e, "read", err)
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf), fuse.OK
}

func (s *Server) readPart(n *node, off int64, buf []byte) (err error) {
	h := n.e.img.Load()
	if h == nil { // another server opened the file
		if h, err = s.image(n.e); err != nil {
			return err
		}
	}
	f, err := s.composedOf(h, n)
	if err != nil {
		return err
	}
	defer s.rescueErr("reading a composed file", &err)
	got, err := f.ReadAt(buf, off)
	switch {
	case got == len(buf) && (err == nil || errors.Is(err, io.EOF)):
		return nil
	case err == nil:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s at %d: %w", n.name, off, err)
}

// composedName is what the number of a composed file is made of. A change of what such files look like needs
// another version, so that a server that takes over does not mix two kinds of bytes.
func composedName(name string) string { return "1/" + name }
