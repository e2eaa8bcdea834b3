package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/minio/minio-go/v7"

	"github.com/thawfs/thaw/index/blob"
)

// object is an open blob: an object of the service as it was when it was opened.
type object struct {
	s    *Store
	name string
	etag string
	size int64
	tail atomic.Pointer[[]byte] // the end of it, as long as it is kept
}

// keptTails is how many ends of objects are kept: those of the objects that were opened last. What opens a
// pack reads its end at once, and never again.
const keptTails = 16

// tails are the objects that have their end in memory.
type tails struct {
	mu   sync.Mutex
	last [keptTails]*object
	next int
}

// keep makes tail the end of o, and takes the one that was kept longest from its object.
func (t *tails) keep(o *object, tail []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.last[t.next]; old != nil {
		old.tail.Store(nil)
	}
	o.tail.Store(&tail)
	t.last[t.next] = o
	t.next = (t.next + 1) % keptTails
}

// Open implements blob.Store: one GET, of the end of the object.
func (s *Store) Open(ctx context.Context, name string) (blob.Object, error) {
	o, err := s.open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return o, nil
}

func (s *Store) open(ctx context.Context, name string) (*object, error) {
	if err := blob.CheckName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, cancel := context.WithTimeout(ctx, s.limits.Read)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	for n := 0; ; n++ {
		o, err := s.openOnce(all, name)
		if err == nil {
			return o, nil
		}
		if err = classify(err); lasting(err) {
			return nil, err
		}
		if pause(all, backoff(n, retryPause)) != nil {
			return nil, s.over(ctx, err)
		}
	}
}

func (s *Store) openOnce(ctx context.Context, name string) (*object, error) {
	a, err := s.ask(ctx, name, "", fmt.Sprintf("bytes=-%d", s.limits.Tail), s.limits.Tail, nil)
	if emptyRange(err) {
		// An empty object has no end.
		info, err := s.stat(ctx, name)
		if err != nil {
			return nil, err
		}
		if info.Size != 0 {
			return nil, fmt.Errorf("%w: no end of %d bytes", errAnswer, info.Size)
		}
		return &object{s: s, name: name, etag: info.ETag}, nil
	}
	if err != nil {
		return nil, err
	}
	defer a.end()
	if a.off+a.len != a.size || a.len != min(a.size, int64(s.limits.Tail)) {
		return nil, fmt.Errorf("%w: bytes %d to %d of %d instead of the end", errAnswer, a.off, a.off+a.len, a.size)
	}
	tail := make([]byte, a.len)
	if _, err := io.ReadFull(a.body, tail); err != nil {
		return nil, fmt.Errorf("end of %d bytes: %w", a.size, noEOF(err))
	}
	o := &object{s: s, name: name, etag: a.etag, size: a.size}
	s.tails.keep(o, tail)
	return o, nil
}

// OpenInfo implements blob.InfoOpener.
func (s *Store) OpenInfo(b blob.Info) (blob.Object, error) {
	if b.Tag == "" {
		return nil, fmt.Errorf("open %s: %w: it has no tag", b.Name, blob.ErrNotFound)
	}
	return &object{s: s, name: b.Name, etag: b.Tag, size: b.Size}, nil
}

// Tag implements blob.Tagged: the ETag is a hash of the content, or of its encryption.
func (o *object) Tag() string { return o.etag }

// emptyRange says whether a request failed because the object has no such bytes.
func emptyRange(err error) bool {
	var e minio.ErrorResponse
	return errors.As(err, &e) && e.StatusCode == http.StatusRequestedRangeNotSatisfiable
}

// noEOF makes an error of the end of an answer that came too early: io.EOF means the end of a blob.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadAt implements io.ReaderAt: one ranged GET, if nothing fails and the end of the object is not asked for.
func (o *object) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: at %d: must not be negative", o.name, off)
	}
	if off >= o.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	if rest := o.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	if tail := o.tail.Load(); tail != nil {
		if start := o.size - int64(len(*tail)); off >= start {
			return copy(p, (*tail)[off-start:]), err
		}
	}
	if n, rerr := o.fetch(p, off); rerr != nil {
		return n, fmt.Errorf("read %s: %d bytes at %d: %w", o.name, len(p), off, rerr)
	}
	return len(p), err
}

func (o *object) Size() int64 { return o.size }

// Close implements blob.Object.
func (o *object) Close() error {
	o.tail.Store(nil)
	return nil
}

// Medium implements blob.Describer.
func (o *object) Medium() blob.Medium { return o.s.Medium() }
