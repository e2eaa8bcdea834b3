package index

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// readCounter counts reads of blobs.
type readCounter struct {
	blob.Store
	reads atomic.Int64
}

type readObject struct {
	blob.Object
	reads *atomic.Int64
}

func (c *readCounter) Open(ctx context.Context, name string) (blob.Object, error) {
	o, err := c.Store.Open(ctx, name)
	return readObject{o, &c.reads}, err
}

func (o readObject) ReadAt(p []byte, off int64) (int, error) {
	o.reads.Add(1)
	return o.Object.ReadAt(p, off)
}

// TestHashesOfManySmallPacks: a store that grew by small steps has many packs of few pages, and pages
// that are neighbours in memory lie in any of them. Their hashes are read once.
func TestHashesOfManySmallPacks(t *testing.T) {
	const pages = 300
	count := &readCounter{}
	s, err := Open(t.Context(), t.TempDir(), OpenOptions{Create: true, Log: testLog(t),
		Wrap: func(_ context.Context, b blob.Store) (blob.Store, error) { count.Store = b; return count, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.limits.packPages = 1
	var img testImage
	for i := range uint64(pages) {
		img = append(img, 1000+i)
	}
	b := img.bytes()
	mustImport(t, s, "a", writeSource(t, b, nil), nil)
	m := openImage(t, s, "a")
	defer m.Close()
	if n := len(m.root.top.packs); n < pages/2 {
		t.Fatalf("%d packs: the test is of many", n)
	}
	c := newHashCache(t.Context(), s.packs, nil, testLog(t))
	hasher := pack.NewHasher(s.key)
	compare := func() int64 {
		before := count.reads.Load()
		for gfn := range uint64(pages) {
			if ref := m.pages.ref(gfn); !c.is(ref, hasher.Sum(b[gfn*PageSize:][:PageSize])) {
				t.Fatalf("page %d is not recognised", gfn)
			}
		}
		return count.reads.Load() - before
	}
	if first, again := compare(), compare(); first == 0 || again != 0 {
		t.Errorf("%d reads, and once more %d", first, again)
	}
}
