package seal

import (
	"fmt"

	"github.com/thawfs/thaw/index/blob"
)

// flushSize is how many sealed bytes are written at once.
const flushSize = 256 << 10

// writer seals a blob while it is written.
type writer struct {
	inner   blob.Writer
	name    string
	salt    [saltSize]byte
	chunks  chunks
	pending []byte // the last chunk so far: whether it is the last, Commit knows
	out     []byte // sealed and not written
	closed  bool
}

func newWriter(v *Vault, inner blob.Writer, name string) *writer {
	w := &writer{inner: inner, name: name, salt: newSalt(), pending: make([]byte, 0, chunkSize)}
	w.chunks.aead = v.key(w.salt, forBlob, name)
	w.out = appendEnvelope(nil, w.salt)
	return w
}

// Write implements blob.Writer.
func (w *writer) Write(p []byte) (n int, err error) {
	if w.closed {
		return 0, fmt.Errorf("write %s: %w", w.name, blob.ErrClosed)
	}
	for len(p) > 0 {
		if len(w.pending) == chunkSize {
			w.out = w.chunks.seal(w.out, w.pending, false)
			w.pending = w.pending[:0]
			for len(p) > chunkSize { // it needs no copy
				w.out = w.chunks.seal(w.out, p[:chunkSize], false)
				p, n = p[chunkSize:], n+chunkSize
			}
		}
		took := copy(w.pending[len(w.pending):chunkSize], p)
		w.pending = w.pending[:len(w.pending)+took]
		p, n = p[took:], n+took
		if err := w.flush(flushSize); err != nil {
			return n, err
		}
	}
	return n, nil
}

// flush writes what is sealed, if it has so many bytes.
func (w *writer) flush(least int) error {
	if len(w.out) < least {
		return nil
	}
	_, err := w.inner.Write(w.out)
	w.out = w.out[:0]
	return err
}

// Commit implements blob.Writer.
func (w *writer) Commit() error {
	if w.closed {
		return fmt.Errorf("commit %s: %w", w.name, blob.ErrClosed)
	}
	w.closed = true
	w.out = appendEnvelope(w.chunks.seal(w.out, w.pending, true), w.salt)
	if err := w.flush(0); err != nil {
		return err
	}
	return w.inner.Commit()
}

// Abort implements blob.Writer.
func (w *writer) Abort() error {
	w.closed = true
	return w.inner.Abort()
}
