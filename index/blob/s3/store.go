package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/thawfs/thaw/index/blob"
)

// Store is a blob.Store in a bucket. Its methods, and those of its objects, may be called by many
// goroutines at once.
type Store struct {
	core          *minio.Core
	bucket        string
	prefix        string // of the keys, with its slash
	sse           encrypt.ServerSide
	unconditional bool
	limits        Limits
	transport     *transport
	hedge         *hedger
	tails         tails

	ctx    context.Context // ends with Close; reads and uploads have no other
	cancel context.CancelFunc
}

var (
	_ blob.Store      = (*Store)(nil)
	_ blob.Describer  = (*Store)(nil)
	_ blob.InfoOpener = (*Store)(nil)
)

// Open returns the store of a configuration. It sends nothing but, if nobody said who is asking, the
// question for the credentials of this host: they are looked for in the environment (AWS_ACCESS_KEY_ID,
// then MINIO_ACCESS_KEY), ~/.aws (AWS_PROFILE), ~/.mc, and the role that a cloud gives to its host,
// container or service account. The caller must call Close.
func Open(ctx context.Context, c Config) (*Store, error) {
	s, err := open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Location(), err)
	}
	return s, nil
}

func open(ctx context.Context, c Config) (*Store, error) {
	c.Limits = c.Limits.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	sse, err := c.encryption()
	if err != nil {
		return nil, err
	}
	t, err := c.transport()
	if err != nil {
		return nil, err
	}
	s := &Store{bucket: c.Bucket, sse: sse, unconditional: c.Unconditional, limits: c.Limits,
		transport: &transport{Transport: t}, hedge: newHedger()}
	if c.Prefix != "" {
		s.prefix = c.Prefix + "/"
	}
	if s.core, err = c.client(ctx, s.transport); err != nil {
		t.CloseIdleConnections()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends all requests that are under way, and the connections. Objects and writers fail from then on.
func (s *Store) Close() error {
	s.cancel()
	s.transport.CloseIdleConnections()
	return nil
}

// Medium implements blob.Describer.
func (s *Store) Medium() blob.Medium {
	return blob.Medium{Latency: s.limits.Latency, Parallel: s.limits.Connections}
}

// transport sends requests, and learns from the answers what time the service has.
type transport struct {
	*http.Transport
	ahead atomic.Int64 // of the service's clock, in ns
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := time.Now()
	resp, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		t.ahead.Store(int64(date.Sub(sent)))
	}
	return resp, nil
}

// Now is the time by the clock of the service, as far as an answer has told it, within a second or so. What
// objects were written when is told by that clock.
func (s *Store) Now() time.Time { return time.Now().Add(time.Duration(s.transport.ahead.Load())) }

func (s *Store) key(name string) string { return s.prefix + name }

// customerKey is what every request for an object must say, if a customer's key encrypts it.
func (s *Store) customerKey() encrypt.ServerSide {
	if s.sse != nil && s.sse.Type() == encrypt.SSEC {
		return s.sse
	}
	return nil
}

// stat asks what is stored under a name, with one HEAD; blob.ErrNotFound if nothing is.
func (s *Store) stat(ctx context.Context, name string) (info minio.ObjectInfo, err error) {
	err = s.repeat(ctx, func(ctx context.Context) error {
		o := minio.StatObjectOptions{ServerSideEncryption: s.customerKey()}
		info, err = s.core.StatObject(ctx, s.bucket, s.key(name), o)
		return err
	})
	return info, err
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	var out []blob.Info
	var after string // the key that came last: a listing that failed goes on behind it
	err := s.repeat(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for o := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{
			Prefix: s.prefix + prefix, Recursive: true, StartAfter: after,
		}) {
			if o.Err != nil {
				return o.Err
			}
			after = o.Key
			name, ours := strings.CutPrefix(o.Key, s.prefix)
			if !ours || !strings.HasPrefix(name, prefix) || blob.CheckName(name) != nil {
				continue
			}
			out = append(out, blob.Info{Name: name, Size: o.Size, Tag: strings.Trim(o.ETag, `"`)})
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, err)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Remove implements blob.Store. The service forgets in silence what is not there, so it is looked up first.
func (s *Store) Remove(ctx context.Context, name string) error {
	err := blob.CheckName(name)
	if err == nil {
		_, err = s.stat(ctx, name)
	}
	if err == nil {
		err = s.delete(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, name string) error {
	return s.repeat(ctx, func(ctx context.Context) error {
		return s.core.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{})
	})
}

// Sweep forgets the uploads that began longer than age ago, by the clock of the service, and were never
// completed: nobody sees them, and they take space. Uploads that other hosts have under way must be younger.
func (s *Store) Sweep(ctx context.Context, age time.Duration) (swept int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a listing that is not read to its end
	var errs []error
	for u := range s.core.ListIncompleteUploads(ctx, s.bucket, s.prefix, true) {
		if u.Err != nil {
			errs = append(errs, classify(u.Err))
			break
		}
		if s.Now().Sub(u.Initiated) < age || !strings.HasPrefix(u.Key, s.prefix) {
			continue
		}
		if err := s.abort(ctx, u.Key, u.UploadID); err != nil {
			errs = append(errs, err)
			continue
		}
		swept++
	}
	if err := errors.Join(errs...); err != nil {
		return swept, fmt.Errorf("sweep uploads: %w", err)
	}
	return swept, nil
}

func (s *Store) abort(ctx context.Context, key, upload string) error {
	return s.repeat(ctx, func(ctx context.Context) error {
		err := s.core.AbortMultipartUpload(ctx, s.bucket, key, upload)
		if minio.ToErrorResponse(err).Code == minio.NoSuchUpload {
			return nil
		}
		return err
	})
}
