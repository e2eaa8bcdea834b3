package cache_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/cache"
	"github.com/thawfs/thaw/tests/blobtest"
)

// remote is a store whose reads are counted and can fail, as one behind a network. Its blobs may be replaced.
type remote struct {
	*blobtest.Mem
	opens, reads, bytes atomic.Int64
	broken              atomic.Bool
}

var errBroken = errors.New("the network is down")

func newRemote() *remote { return &remote{Mem: blobtest.NewMem()} }

// info is the blob of a name.
func (r *remote) info(name string) (blob.Info, error) {
	list, err := r.List(context.Background(), name)
	if err != nil || len(list) == 0 || list[0].Name != name {
		return blob.Info{}, fmt.Errorf("%s: %w", name, errors.Join(blob.ErrNotFound, err))
	}
	return list[0], nil
}

func (r *remote) Open(ctx context.Context, name string) (blob.Object, error) {
	r.opens.Add(1)
	if r.broken.Load() {
		return nil, errBroken
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := blob.CheckName(name); err != nil {
		return nil, err
	}
	info, err := r.info(name)
	if err != nil {
		return nil, err
	}
	return &remoteObject{r: r, info: info}, nil
}

func (r *remote) OpenInfo(info blob.Info) (blob.Object, error) {
	return &remoteObject{r: r, info: info}, nil
}

type remoteObject struct {
	r    *remote
	info blob.Info
}

func (o *remoteObject) Size() int64  { return o.info.Size }
func (o *remoteObject) Tag() string  { return o.info.Tag }
func (o *remoteObject) Close() error { return nil }

func (o *remoteObject) ReadAt(p []byte, off int64) (int, error) {
	o.r.reads.Add(1)
	o.r.bytes.Add(int64(len(p)))
	if o.r.broken.Load() {
		return 0, errBroken
	}
	if now, err := o.r.info(o.info.Name); err != nil || now.Tag != o.info.Tag {
		return 0, fmt.Errorf("%w: another one is there", blob.ErrNotFound)
	}
	inner, err := o.r.Mem.Open(context.Background(), o.info.Name)
	if err != nil {
		return 0, err
	}
	return inner.ReadAt(p, off)
}

func open(t testing.TB, dir string, o cache.Options) *cache.Cache {
	t.Helper()
	if o.MinFree == 0 {
		o.MinFree = -1 // the disk of a test may be full
	}
	c, err := cache.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func openBlob(t testing.TB, s blob.Store, name string) *cache.Object {
	t.Helper()
	o, err := s.Open(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o.(*cache.Object)
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(readForEver(dir))
	}
	goleak.VerifyTestMain(m)
}
