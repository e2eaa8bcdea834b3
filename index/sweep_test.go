package index

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest"
)

// openTally counts how often each blob was opened.
type openTally struct {
	blob.Store
	mu sync.Mutex
	n  map[string]int
}

func (c *openTally) Open(ctx context.Context, name string) (blob.Object, error) {
	c.mu.Lock()
	c.n[name]++
	c.mu.Unlock()
	return c.Store.Open(ctx, name)
}

// most is how often the blob was opened that was opened most often.
func (c *openTally) most() (name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b, k := range c.n {
		if k > n {
			name, n = b, k
		}
	}
	return name, n
}

// distinct is an image of n pages that no other image of another seed has.
func distinct(seed, n int) testImage {
	img := make(testImage, n)
	for i := range img {
		img[i] = uint64(seed*n + i + 1)
	}
	return img
}

// A collection opens each pack a few times, however many there are and although the rows of the index are
// in no order that has to do with them; and it leaves a row for each page that is there, and for no other.
func TestSweepOpensEachPackOnce(t *testing.T) {
	limitFiles(t, 100) // so that a walk has few packs open
	ctx := t.Context()
	blobs := &openTally{Store: blobtest.NewMem(), n: map[string]int{}}
	s := openTest(t, t.TempDir()+"/s", blobs)
	const checkpoints = 90
	for i := range checkpoints {
		mustImport(t, s, fmt.Sprint("c", i), writeSource(t, distinct(i, 40).bytes(), nil), nil)
	}
	if err := s.hints.rebuild(ctx, nil); err != nil { // all rows are on disk
		t.Fatal(err)
	}
	for i := 0; i < checkpoints; i += 4 {
		if err := s.Remove(ctx, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	clear(blobs.n)
	if rep, err := s.GC(ctx, GCOptions{}); err != nil || rep.RemovedPacks == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if name, n := blobs.most(); n > 6 {
		t.Errorf("%s was opened %d times", name, n)
	}
	rowsAreThere(t, s, 40*(checkpoints-(checkpoints+3)/4))
}

// rowsAreThere requires that the index has a row for each of so many pages, and none of another.
func rowsAreThere(t *testing.T, s *Store, want int) {
	t.Helper()
	there := newPresence(t.Context(), s.packs)
	pages, gone := 0, 0
	err := s.hints.do(t.Context(), func(k keyStore) error {
		return scanAll(t.Context(), k, rowPage, func(rows []row) error {
			for _, r := range rows {
				ref := parseRef(r.value)
				packs := newLazyPacks(t.Context(), s.packs)
				is := isThere(packs, rowPage, ref)
				packs.release()
				if is != there.has(rowPage, ref) {
					t.Errorf("%v: there: %v", pack.Ref(ref), is)
				}
				if pages++; !is {
					gone++
				}
			}
			return nil
		})
	})
	if err != nil || pages != want || gone != 0 {
		t.Errorf("the index has %d pages, %d of which are gone, want %d; %v", pages, gone, want, err)
	}
}

// A collection of a little leaves the rows as they are; what is stale adds up until a sweep is worth it.
func TestSweepWaitsUntilItIsWorthIt(t *testing.T) {
	ctx := t.Context()
	s := openTest(t, t.TempDir()+"/s", blobtest.NewMem())
	const checkpoints = 60
	for i := range checkpoints {
		mustImport(t, s, fmt.Sprint("c", i), writeSource(t, distinct(i, 40).bytes(), nil), nil)
	}
	if err := s.hints.rebuild(ctx, nil); err != nil {
		t.Fatal(err)
	}
	swept := 0
	for i := range 20 {
		if err := s.Remove(ctx, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GC(ctx, GCOptions{}); err != nil {
			t.Fatal(err)
		}
		var stale []byte
		err := s.hints.do(ctx, func(k keyStore) (err error) {
			stale, err = k.get(ctx, metaKey(metaStale))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if stale == nil {
			swept++
			rowsAreThere(t, s, 40*(checkpoints-i-1))
		}
	}
	if swept < 3 || swept > 8 {
		t.Errorf("20 collections of a sixtieth swept %d times", swept)
	}
}

// The audit of a collection opens a pack for few of the checkpoints that list it, and not for each.
func TestAuditKeepsPacksOpen(t *testing.T) {
	r := newRand(t)
	blobs := &openTally{Store: blobtest.NewMem(), n: map[string]int{}}
	s := openTest(t, t.TempDir()+"/s", blobs)
	const states = 40
	img := distinct(1, 400)
	for i := range states {
		mustImport(t, s, fmt.Sprintf("c%02d", i), writeSource(t, img.bytes(), nil), nil)
		for j := range 5 {
			img[i*5+j] = 1000 + r.Uint64()>>8
		}
	}
	for i := range states / 2 {
		if err := s.Remove(t.Context(), fmt.Sprintf("c%02d", i)); err != nil {
			t.Fatal(err)
		}
	}
	clear(blobs.n)
	if rep, err := s.GC(t.Context(), GCOptions{}); err != nil || rep.RewrittenPacks == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	// Each of the walks of the audit opens it, and some others.
	name, n := blobs.most()
	if n > 5+runtime.GOMAXPROCS(0) {
		t.Errorf("%s was opened %d times", name, n)
	}
	checkClean(t, s, true)
}
