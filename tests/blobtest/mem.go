package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/thawfs/thaw/index/blob"
)

// Mem is a blob.Store in memory.
type Mem struct {
	mu    sync.Mutex
	blobs map[string]memBlob // guarded by mu
	seq   uint64             // of the blob that came last; guarded by mu
}

// memBlob is a committed blob. Its bytes are never changed.
type memBlob struct {
	b   []byte
	seq uint64
}

// NewMem makes an empty Mem.
func NewMem() *Mem { return &Mem{blobs: make(map[string]memBlob)} }

// put makes b the blob of a name. mu must be held.
func (m *Mem) put(name string, b []byte) {
	m.seq++
	m.blobs[name] = memBlob{b, m.seq}
}

var _ blob.Store = (*Mem)(nil)

// Create implements blob.Store.
func (m *Mem) Create(ctx context.Context, name string) (blob.Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := blob.CheckName(name); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.blobs[name]; ok {
		return nil, fmt.Errorf("create %s: %w", name, blob.ErrExists)
	}
	return &memWriter{m: m, name: name}, nil
}

// Open implements blob.Store.
func (m *Mem) Open(ctx context.Context, name string) (blob.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, blob.ErrNotFound)
	}
	return memObject{bytes.NewReader(b.b)}, nil
}

// List implements blob.Store.
func (m *Mem) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []blob.Info
	for name, b := range m.blobs {
		if strings.HasPrefix(name, prefix) {
			out = append(out, blob.Info{Name: name, Size: int64(len(b.b)), Tag: fmt.Sprint(b.seq)})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Remove implements blob.Store.
func (m *Mem) Remove(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.blobs[name]; !ok {
		return fmt.Errorf("remove %s: %w", name, blob.ErrNotFound)
	}
	delete(m.blobs, name)
	return nil
}

// Replace puts bytes under a name, whatever was there. No real store can do that, and nothing but a
// test may: it is how a test damages a disk.
func (m *Mem) Replace(name string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(name, bytes.Clone(b))
}

type memWriter struct {
	m      *Mem
	name   string
	buf    []byte
	closed bool
}

func (w *memWriter) Write(p []byte) (int, error) {
	if w.closed {
		return 0, fmt.Errorf("write %s: %w", w.name, blob.ErrClosed)
	}
	w.buf = append(w.buf, p...)
	return len(p), nil
}

func (w *memWriter) Commit() error {
	if w.closed {
		return fmt.Errorf("commit %s: %w", w.name, blob.ErrClosed)
	}
	w.closed = true
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if _, ok := w.m.blobs[w.name]; ok {
		return fmt.Errorf("commit %s: %w", w.name, blob.ErrExists)
	}
	w.m.put(w.name, w.buf)
	return nil
}

func (w *memWriter) Abort() error {
	w.closed, w.buf = true, nil
	return nil
}

type memObject struct{ *bytes.Reader }

func (o memObject) Size() int64  { return o.Reader.Size() }
func (o memObject) Close() error { return nil }
