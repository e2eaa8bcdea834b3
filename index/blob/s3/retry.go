package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/thawfs/thaw/index/blob"
)

// Errors that the package decides on.
var (
	// errExists: the condition of an upload failed.
	errExists = errors.New("the service has it already")
	// errConflict: the service could not tell, because something else happened to the name at once.
	errConflict = errors.New("something else happened to the name at the same time")
	// errAnswer: the service sent something else than what it was asked for.
	errAnswer = errors.New("wrong answer of the service")
)

// permanent are codes that another attempt does not change.
var permanent = []string{minio.NoSuchBucket, minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch",
	"InvalidBucketName", "InvalidRequest", "InvalidArgument", "NotImplemented", "MethodNotAllowed"}

// classify makes one of the package's errors, or of blob's, of what a request returned.
func classify(err error) error {
	var e minio.ErrorResponse
	if err == nil || !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == minio.NoSuchBucket:
		return fmt.Errorf("there is no such bucket: %w", err)
	case e.StatusCode == http.StatusNotFound && e.Code != minio.NoSuchUpload:
		return fmt.Errorf("%w (%w)", blob.ErrNotFound, err)
	case e.StatusCode == http.StatusPreconditionFailed || e.Code == minio.PreconditionFailed:
		return fmt.Errorf("%w (%w)", errExists, err)
	case e.StatusCode == http.StatusConflict:
		return fmt.Errorf("%w (%w)", errConflict, err)
	}
	return err
}

// lasting says whether the classified error of a request is the same however often it is sent.
func lasting(err error) bool {
	if errors.Is(err, blob.ErrNotFound) || errors.Is(err, errExists) || errors.Is(err, errConflict) {
		return true
	}
	var e minio.ErrorResponse
	if !errors.As(err, &e) {
		return false // the network, a deadline of one attempt, a wrong answer
	}
	switch {
	case slices.Contains(permanent, e.Code):
		return true
	case e.Code == "RequestTimeout" || e.StatusCode == http.StatusRequestTimeout ||
		e.StatusCode == http.StatusTooManyRequests:
		return false
	}
	return e.StatusCode >= 400 && e.StatusCode < 500
}

// backoff is how long to wait after the n-th failure, from 0 on. Many readers may have failed at once, so
// each waits for another time.
func backoff(n int, most time.Duration) time.Duration {
	d := min(20*time.Millisecond<<min(n, 10), most)
	return d/2 + rand.N(d/2+1)
}

// pause waits, or returns the error of the context.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// repeat sends a request that may be sent twice until it is answered, its error lasts, or Limits.Request is
// over. The error is classified.
func (s *Store) repeat(ctx context.Context, send func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	all, cancel := context.WithTimeout(ctx, s.limits.Request)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	for n := 0; ; n++ {
		err := classify(s.once(all, send))
		if err == nil || lasting(err) {
			return err
		}
		if perr := pause(all, backoff(n, 3*time.Second)); perr != nil {
			return s.over(ctx, err)
		}
	}
}

// once sends a request that has a part of the time that all attempts have, so that one which hangs is not
// the only one.
func (s *Store) once(ctx context.Context, send func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.Request/4)
	defer cancel()
	return send(ctx)
}

// over explains why a request is not repeated any more, after its last error.
func (s *Store) over(ctx context.Context, last error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w (%w)", ctx.Err(), last)
	case s.ctx.Err() != nil:
		return fmt.Errorf("the store was closed: %w", last)
	}
	return fmt.Errorf("the service does not answer in time: %w", last)
}
