package fs

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// liveTexts are the texts of live files as they were when they were opened, by file handle.
type liveTexts struct {
	mu    sync.Mutex
	texts map[uint64][]byte
}

func (h *liveTexts) add(fh uint64, text []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.texts == nil {
		h.texts = make(map[uint64][]byte)
	}
	h.texts[fh] = text
}

func (h *liveTexts) get(fh uint64) (text []byte, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text, ok = h.texts[fh]
	return text, ok
}

func (h *liveTexts) remove(fh uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.texts, fh)
}

// slice is the part of a text that a READ asks for.
func slice(text []byte, off uint64, buf []byte) fuse.ReadResult {
	if off >= uint64(len(text)) {
		return fuse.ReadResultData(nil)
	}
	return fuse.ReadResultData(buf[:copy(buf, text[off:])])
}

// readStored reads a file that the store keeps as it is. It is opened for each READ: most
// reads are answered by the page cache, and a server that takes over has no open files to know of.
func (s *Server) readStored(n *node, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	size := uint64(n.size)
	if in.Offset >= size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(uint64(len(buf)), size-in.Offset)]
	if err := s.readFile(n, int64(in.Offset), buf); err != nil {
		s.complain(n.e, "read file", err)
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf), fuse.OK
}

func (s *Server) readFile(n *node, off int64, buf []byte) (err error) {
	defer s.rescueErr("reading a file", &err)
	// It must be the revision that the node has its size from: bytes of another one would be mixed
	// with those in the page cache.
	f, err := s.store.OpenFile(s.ctx, *n.of, n.name)
	if err != nil {
		return fmt.Errorf("open %s: %w", n.name, err)
	}
	defer f.Close()
	got, err := f.ReadAt(buf, off)
	if got == len(buf) && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s at %d: %w", n.name, off, err)
}
