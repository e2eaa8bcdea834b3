package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/thawfs/thaw/index/blob"
)

// retryPause is how long a read waits at most before it asks again: a machine waits with it.
const retryPause = 500 * time.Millisecond

// fetch reads all of p from an object, within Limits.Read.
func (o *object) fetch(p []byte, off int64) (n int, err error) {
	ctx, cancel := context.WithTimeout(o.s.ctx, o.s.limits.Read)
	defer cancel()
	for failed := 0; n < len(p); {
		got, err := o.s.hedge.read(ctx, p[n:], func(ctx context.Context, p []byte, begun func()) (int, error) {
			return o.get(ctx, p, off+int64(n), begun)
		})
		if n += got; err == nil {
			continue
		}
		if err = classify(err); errors.Is(err, errExists) {
			return n, fmt.Errorf("%w: another one has taken its place (%w)", blob.ErrNotFound, err)
		}
		if lasting(err) {
			return n, err
		}
		if got > 0 {
			failed = 0 // the service is there
		}
		if pause(ctx, backoff(failed, retryPause)) != nil {
			return n, o.s.over(o.s.ctx, err)
		}
		failed++
	}
	return n, nil
}

// get sends one request for the bytes of p.
func (o *object) get(ctx context.Context, p []byte, off int64, begun func()) (int, error) {
	end := off + int64(len(p))
	a, err := o.s.ask(ctx, o.name, o.etag, fmt.Sprintf("bytes=%d-%d", off, end-1), len(p), begun)
	if err != nil {
		return 0, err
	}
	defer a.end()
	switch {
	case a.etag != o.etag || a.size != o.size:
		return 0, fmt.Errorf("%w: it has ETag %s and %d bytes now, and had %s and %d", blob.ErrNotFound,
			a.etag, a.size, o.etag, o.size)
	case a.off != off || a.len != int64(len(p)):
		return 0, fmt.Errorf("%w: bytes %d to %d instead of %d to %d", errAnswer, a.off, a.off+a.len, off, end)
	}
	n, err := io.ReadFull(a.body, p)
	return n, noEOF(err)
}

// answer is the begun answer to a request for a range.
type answer struct {
	off, len int64 // of the bytes that follow
	size     int64 // of the whole object
	etag     string
	body     io.Reader
	end      func()
}

// perMegabyte is how much time a request has for each megabyte that it asks for, in parts of Limits.Answer.
const perMegabyte = 2

// ask sends one request for a range of an object that has the given ETag; empty for any. The request ends
// with ctx, and when its answer has not begun, or not ended, in time. begun may be nil. The caller calls
// answer.end.
func (s *Store) ask(ctx context.Context, name, etag, bytes string, most int, begun func()) (a answer, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(s.limits.Answer, func() { cancel(errLate) })
	defer func() {
		if err != nil {
			timer.Stop()
			if errors.Is(context.Cause(ctx), errLate) {
				err = fmt.Errorf("%w after %v", errLate, s.limits.Answer)
			}
			cancel(nil)
		}
	}()
	o := minio.GetObjectOptions{ServerSideEncryption: s.customerKey()}
	o.Set("Range", bytes)
	if etag != "" {
		if err := o.SetMatchETag(etag); err != nil {
			return a, err
		}
	}
	body, info, header, err := s.core.GetObject(ctx, s.bucket, s.key(name), o)
	if err != nil {
		return a, err
	}
	if begun != nil {
		begun()
	}
	timer.Reset(s.limits.Answer * time.Duration(1+most>>20/perMegabyte))
	a = answer{etag: info.ETag, body: body, end: func() {
		timer.Stop()
		cancel(nil)
		body.Close()
	}}
	if a.off, a.len, a.size, err = rangeOf(header, info.Size); err != nil {
		a.end()
	}
	return a, err
}

// errLate is the cause of the end of a request that took too long. Another one may be quicker.
var errLate = errors.New("no answer")

// rangeOf says which bytes an answer has. One that has all of them need not say so.
func rangeOf(h http.Header, length int64) (off, n, size int64, err error) {
	text := h.Get("Content-Range")
	if text == "" {
		if length < 0 {
			return 0, 0, 0, fmt.Errorf("%w: it has no length", errAnswer)
		}
		return 0, length, length, nil
	}
	var last int64
	rest, ok := strings.CutPrefix(text, "bytes ")
	if ok {
		var k int
		k, err = fmt.Sscanf(rest, "%d-%d/%d", &off, &last, &size)
		ok = k == 3 && err == nil
	}
	if n = last - off + 1; !ok || off < 0 || n <= 0 || last >= size || length >= 0 && length != n {
		return 0, 0, 0, fmt.Errorf("%w: Content-Range %q of %d bytes", errAnswer, text, length)
	}
	return off, n, size, nil
}
