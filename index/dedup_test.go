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
	reads, bytes atomic.Int64
}

type readObject struct {
	blob.Object
	c *readCounter
}

func (c *readCounter) Open(ctx context.Context, name string) (blob.Object, error) {
	o, err := c.Store.Open(ctx, name)
	return readObject{o, c}, err
}

func (o readObject) ReadAt(p []byte, off int64) (int, error) {
	o.c.reads.Add(1)
	o.c.bytes.Add(int64(len(p)))
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
	defer c.release()
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

// TestHashesOfManyLargePacks: neighbours in memory lie in many packs, whose hashes do not fit all at once.
// Then a comparison reads the hashes around one page, and not those of its pack.
func TestHashesOfManyLargePacks(t *testing.T) {
	const packs, perPack = 6, 4 * partHashes
	count := &readCounter{}
	s, err := Open(t.Context(), t.TempDir(), OpenOptions{Create: true, Log: testLog(t),
		Wrap: func(_ context.Context, b blob.Store) (blob.Store, error) { count.Store = b; return count, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.limits.packPages = perPack
	img := distinct(3, packs*perPack)
	b := img.bytes()
	mustImport(t, s, "a", writeSource(t, b, nil), nil)
	m := openImage(t, s, "a")
	defer m.Close()
	c := newHashCache(t.Context(), s.packs, nil, testLog(t))
	defer c.release()
	c.bound = packs * perPack / 4
	hasher := pack.NewHasher(s.key)
	compare := func() int64 {
		before := count.bytes.Load()
		for i := range uint64(perPack / 8) {
			for p := range uint64(packs) {
				gfn := p*perPack + i*8
				sum := hasher.Sum(b[gfn*PageSize:][:PageSize])
				if ref := m.pages.ref(gfn); !c.is(ref, sum) || c.is(ref+1, sum) {
					t.Fatalf("page %d is not told from the next", gfn)
				}
			}
		}
		return count.bytes.Load() - before
	}
	compare() // reads and verifies each pack once
	if again := compare(); again == 0 || again > 2*packs*perPack*pack.HashSize {
		t.Errorf("%d bytes of hashes were read, there are %d", again, packs*perPack*pack.HashSize)
	}
	if c.held > c.bound {
		t.Errorf("%d hashes are held, the bound is %d", c.held, c.bound)
	}
}
