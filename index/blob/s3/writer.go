package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/minio/minio-go/v7"

	"github.com/thawfs/thaw/index/blob"
)

// uploadMeta is the metadata of an object that has the random number of its upload.
const uploadMeta = "Thaw-Upload"

// writer collects the bytes of a blob in parts, and sends those that are full. It is used by one goroutine.
type writer struct {
	s      *Store
	name   string
	number string // random, see uploadMeta
	buf    []byte // of the part that is being filled
	closed bool

	upload string             // the multipart upload; empty before the first part is sent
	slots  chan struct{}      // one for each part that is under way
	ctx    context.Context    // of all parts
	cancel context.CancelFunc // ends them
	wg     sync.WaitGroup

	mu    sync.Mutex
	parts []minio.CompletePart // guarded by mu
	err   error                // of the first part that failed; guarded by mu
}

// Create implements blob.Store. The context is that of Create alone: uploads end with Abort or Close.
func (s *Store) Create(ctx context.Context, name string) (blob.Writer, error) {
	err := blob.CheckName(name)
	if err == nil {
		err = s.free(ctx, name)
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	w := &writer{s: s, name: name, number: rand.Text(), slots: make(chan struct{}, s.limits.Parallel)}
	w.ctx, w.cancel = context.WithCancel(s.ctx)
	return w, nil
}

// free returns blob.ErrExists if a name is taken.
func (s *Store) free(ctx context.Context, name string) error {
	_, err := s.stat(ctx, name)
	if errors.Is(err, blob.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = blob.ErrExists
	}
	return err
}

func (w *writer) Write(p []byte) (n int, err error) {
	if w.closed {
		return 0, fmt.Errorf("write %s: %w", w.name, blob.ErrClosed)
	}
	for n < len(p) {
		if len(w.buf) == w.s.limits.Part {
			if err := w.sendPart(); err != nil {
				return n, fmt.Errorf("write %s: %w", w.name, err)
			}
		}
		k := min(len(p)-n, w.s.limits.Part-len(w.buf))
		w.buf = append(w.buf, p[n:n+k]...)
		n += k
	}
	return n, nil
}

// sendPart sends what was collected, in a goroutine. It waits while Limits.Parallel parts are under way.
func (w *writer) sendPart() error {
	if w.upload == "" {
		err := w.s.repeat(w.ctx, func(ctx context.Context) (err error) {
			w.upload, err = w.s.core.NewMultipartUpload(ctx, w.s.bucket, w.s.key(w.name), w.options())
			return err
		})
		if err != nil {
			return err
		}
	}
	w.slots <- struct{}{}
	number, err := w.claim()
	if err != nil {
		<-w.slots
		return err
	}
	data := w.buf
	w.buf = make([]byte, 0, w.s.limits.Part)
	w.wg.Go(func() {
		defer func() { <-w.slots }()
		part, err := w.putPart(number, data)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil && w.err == nil {
			w.err = fmt.Errorf("part %d: %w", number, err)
		}
		w.parts[number-1].ETag = part.ETag
	})
	return nil
}

// claim returns the number of the next part, or the error of one before it.
func (w *writer) claim() (number int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	number = len(w.parts) + 1
	w.parts = append(w.parts, minio.CompletePart{PartNumber: number})
	return number, w.err
}

func (w *writer) putPart(number int, data []byte) (part minio.ObjectPart, err error) {
	sum := sumOf(data)
	err = w.s.repeat(w.ctx, func(ctx context.Context) error {
		part, err = w.s.core.PutObjectPart(ctx, w.s.bucket, w.s.key(w.name), w.upload, number,
			bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{
				Sha256Hex: sum, SSE: w.s.sse, DisableContentSha256: true,
			})
		return err
	})
	return part, err
}

// sumOf is the SHA-256 of a body in the request's header, which its signature covers and the service
// compares.
func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// options are those of a new object.
func (w *writer) options() minio.PutObjectOptions {
	return minio.PutObjectOptions{
		UserMetadata: map[string]string{uploadMeta: w.number}, ServerSideEncryption: w.s.sse,
		DisableContentSha256: true, // sumOf in its place
	}
}

// Commit implements blob.Writer.
func (w *writer) Commit() error {
	if w.closed {
		return fmt.Errorf("commit %s: %w", w.name, blob.ErrClosed)
	}
	w.closed = true
	err := w.commit()
	w.cancel()
	if err != nil {
		_ = w.end() // Sweep does it later
		return fmt.Errorf("commit %s: %w", w.name, err)
	}
	return nil
}

func (w *writer) commit() error {
	if w.upload == "" {
		return w.conclude(w.put)
	}
	if len(w.buf) > 0 {
		if err := w.sendPart(); err != nil {
			return err
		}
	}
	w.wg.Wait()
	if w.err != nil {
		return w.err
	}
	return w.conclude(w.complete)
}

// put sends a blob that has one part.
func (w *writer) put(ctx context.Context) error {
	o := w.options()
	if !w.s.unconditional {
		o.SetMatchETagExcept("*")
	}
	_, err := w.s.core.PutObject(ctx, w.s.bucket, w.s.key(w.name), bytes.NewReader(w.buf), int64(len(w.buf)), "",
		sumOf(w.buf), o)
	return err
}

// complete makes a blob of the parts. minio.Client would do all of this in one call, without the condition.
func (w *writer) complete(ctx context.Context) error {
	o := minio.PutObjectOptions{ServerSideEncryption: w.s.customerKey()}
	if !w.s.unconditional {
		o.SetMatchETagExcept("*")
	}
	_, err := w.s.core.CompleteMultipartUpload(ctx, w.s.bucket, w.s.key(w.name), w.upload, w.parts, o)
	return err
}

// conclude sends the request that makes the blob visible, until it is known whether it is.
func (w *writer) conclude(send func(context.Context) error) error {
	if w.s.unconditional {
		if err := w.s.free(w.ctx, w.name); err != nil {
			return err
		}
	}
	for n := 0; ; n++ {
		err := w.s.repeat(w.ctx, send)
		if err == nil {
			return nil
		}
		// It may be there by an attempt whose answer was lost.
		switch ours, serr := w.ours(); {
		case serr == nil && ours:
			return nil
		case serr == nil:
			return fmt.Errorf("%w (%w)", blob.ErrExists, err)
		case errors.Is(serr, blob.ErrNotFound) && errors.Is(err, errConflict) && n < conflicts:
			if err := pause(w.ctx, backoff(n+3, retryPause)); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// conflicts is how often an upload is concluded again that the service could not decide on.
const conflicts = 5

// ours says whether what is stored under the name came from this writer.
func (w *writer) ours() (bool, error) {
	info, err := w.s.stat(w.ctx, w.name)
	if err != nil {
		return false, err
	}
	return info.Metadata.Get("X-Amz-Meta-"+uploadMeta) == w.number, nil
}

// Abort implements blob.Writer.
func (w *writer) Abort() error {
	if w.closed {
		return nil
	}
	w.closed = true
	if err := w.end(); err != nil {
		return fmt.Errorf("abort %s: %w", w.name, err)
	}
	return nil
}

// end stops what is under way, and has the service forget the parts, if it answers soon.
func (w *writer) end() error {
	w.cancel()
	w.wg.Wait()
	w.buf = nil
	if w.upload == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(w.s.ctx, w.s.limits.Read)
	defer cancel()
	return w.s.abort(ctx, w.s.key(w.name), w.upload)
}
