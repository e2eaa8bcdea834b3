package crashfs

import (
	"io"
	"io/fs"
	"path"

	"github.com/thawfs/thaw/index/blob"
)

// file is an open file of one process.
type file struct {
	f    *FS
	node *node
	name string
	life int
}

var _ blob.File = (*file)(nil)

// step is the file system's, for a file whose process may be an earlier one. mu must be held.
func (h *file) step() fate {
	if h.life != h.f.life {
		return never
	}
	return h.f.step()
}

// Write appends.
func (h *file) Write(p []byte) (int, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	t := h.step()
	n := len(p)
	switch t {
	case never:
		n = 0
	case partly:
		n = h.f.r.IntN(n + 1)
	}
	h.node.data = append(h.node.data, p[:n]...)
	if err := t.answer("write", h.name, nil); err != nil {
		return n, err
	}
	return n, nil
}

// Sync makes the bytes durable.
func (h *file) Sync() error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	t := h.step()
	if t == done || t == unheard {
		h.node.synced = len(h.node.data)
	}
	return t.answer("sync", h.name, nil)
}

// ReadAt implements io.ReaderAt.
func (h *file) ReadAt(p []byte, off int64) (int, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if h.life != h.f.life || h.f.dead {
		return 0, never.answer("read", h.name, nil)
	}
	if off >= int64(len(h.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Stat implements blob.File.
func (h *file) Stat() (fs.FileInfo, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.node.info(path.Base(h.name)), nil
}

// Close implements io.Closer.
func (h *file) Close() error { return nil }
