package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/minio/minio-go/v7"
)

// Conditions says which uploads a service refuses if their name is taken. Where one is not refused, two
// writers could overwrite each other's blobs: see Config.Unconditional.
type Conditions struct {
	Put       bool // of one part
	Multipart bool // of several
	Race      bool // of several at the same time, one only goes through
}

// All says whether the service can be trusted with several writers.
func (c Conditions) All() bool { return c.Put && c.Multipart && c.Race }

// probeWriters is how many uploads a probe starts at once.
const probeWriters = 8

// Probe finds out whether the service keeps conditions, by writing to names that nobody else uses, and that
// are no blobs. It also shows that this process may write, and delete what it has written.
func (s *Store) Probe(ctx context.Context) (c Conditions, err error) {
	single, parts, race := ".probe-"+rand.Text(), ".probe-"+rand.Text(), ".probe-"+rand.Text()
	defer func() {
		for _, name := range []string{single, parts, race} {
			err = errors.Join(err, s.delete(context.WithoutCancel(ctx), name))
		}
		if err != nil {
			err = fmt.Errorf("probe the service: %w", err)
		}
	}()
	if err := s.probePut(ctx, single, nil); err != nil {
		return c, err
	}
	if c.Put, err = refused(s.probePut(ctx, single, nil)); err != nil {
		return c, err
	}
	if err := s.probeParts(ctx, parts); err != nil {
		return c, err
	}
	if c.Multipart, err = refused(s.probeParts(ctx, parts)); err != nil {
		return c, err
	}
	c.Race, err = s.probeRace(ctx, race)
	return c, err
}

// refused says whether an upload was refused because of its condition.
func refused(err error) (bool, error) {
	if errors.Is(err, errExists) || errors.Is(err, errConflict) {
		return true, nil
	}
	return false, err
}

// probeOptions are those of an upload that must not find its name taken.
func (s *Store) probeOptions() minio.PutObjectOptions {
	o := minio.PutObjectOptions{ServerSideEncryption: s.sse, DisableContentSha256: true}
	o.SetMatchETagExcept("*")
	return o
}

// probePut sends one attempt: another one would find what the first has left.
func (s *Store) probePut(ctx context.Context, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.Request)
	defer cancel()
	_, err := s.core.PutObject(ctx, s.bucket, s.key(name), bytes.NewReader(data), int64(len(data)), "",
		sumOf(data), s.probeOptions())
	return classify(err)
}

// probeParts uploads an object as one part, which is the last one and so may be small.
func (s *Store) probeParts(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.Request)
	defer cancel()
	key := s.key(name)
	upload, err := s.core.NewMultipartUpload(ctx, s.bucket, key, minio.PutObjectOptions{ServerSideEncryption: s.sse})
	if err != nil {
		return classify(err)
	}
	data := []byte("thaw")
	part, err := s.core.PutObjectPart(ctx, s.bucket, key, upload, 1, bytes.NewReader(data), int64(len(data)),
		minio.PutObjectPartOptions{Sha256Hex: sumOf(data), SSE: s.sse, DisableContentSha256: true})
	if err == nil {
		o := minio.PutObjectOptions{ServerSideEncryption: s.customerKey()}
		o.SetMatchETagExcept("*")
		parts := []minio.CompletePart{{PartNumber: 1, ETag: part.ETag}}
		_, err = s.core.CompleteMultipartUpload(ctx, s.bucket, key, upload, parts, o)
	}
	if err != nil {
		return errors.Join(classify(err), s.abort(ctx, key, upload))
	}
	return nil
}

// probeRace says whether one of several uploads goes through that come at once.
func (s *Store) probeRace(ctx context.Context, name string) (bool, error) {
	errs := make([]error, probeWriters)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = s.probePut(ctx, name, []byte{byte(i)}) })
	}
	wg.Wait()
	through := 0
	for _, err := range errs {
		was, err := refused(err)
		if err != nil {
			return false, err
		}
		if !was {
			through++
		}
	}
	return through == 1, nil
}
