package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/cache"
	"github.com/thawfs/thaw/tests/blobtest"
)

func TestSuite(t *testing.T) {
	inner := map[blob.Store]*remote{}
	made := func(t *testing.T, r *remote) blob.Store {
		s := open(t, t.TempDir(), cache.Options{}).Wrap(r, "store")
		inner[s] = r
		return s
	}
	blobtest.Suite{
		New:    func(t *testing.T) blob.Store { return made(t, newRemote()) },
		Reopen: func(t *testing.T, s blob.Store) blob.Store { return made(t, inner[s]) },
	}.Run(t)
}

// noise makes bytes that are others for each seed.
func noise(seed, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
	b := make([]byte, (n+7)/8*8)
	for i := 0; i < len(b); i += 8 {
		v := r.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b[:n]
}

// read reads a range, which must be right.
func read(t testing.TB, o blob.Object, want []byte, off, n int) {
	t.Helper()
	p := make([]byte, n)
	if got, err := o.ReadAt(p, int64(off)); err != nil || got != n || !bytes.Equal(p, want[off:off+n]) {
		t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
	}
}

// TestReadsOnce: what was read is not read again, by whoever uses the directory; a miss brings its
// neighbours, and a large one is one request.
func TestReadsOnce(t *testing.T) {
	const size = 5<<20 + 12345
	r, dir := newRemote(), t.TempDir()
	data := noise(1, size)
	blobtest.Put(t, r.Mem, "a", data)
	c := open(t, dir, cache.Options{})
	o := openBlob(t, c.Wrap(r, "store"), "a")
	for _, step := range []struct {
		what         string
		off, n       int
		reads, bytes int64
	}{
		{"a few bytes", 1000, 100, 1, 256 << 10},
		{"their neighbours", 200_000, 60_000, 0, 0},
		{"a large piece, from a block on", 512 << 10, 2 << 20, 1, 2 << 20},
		{"the same", 512 << 10, 2 << 20, 0, 0},
		{"around the gap before", 0, 512 << 10, 1, 512 << 10},
		{"the end", size - 10, 10, 1, size - 5<<20},
		{"all but what is there, in whole slots", 0, size, 1, 3 << 20},
		{"all", 0, size, 0, 0},
	} {
		before, had := r.reads.Load(), r.bytes.Load()
		read(t, o, data, step.off, step.n)
		if reads, n := r.reads.Load()-before, r.bytes.Load()-had; reads != step.reads || n > step.bytes {
			t.Errorf("%s: %d reads of %d bytes", step.what, reads, n)
		}
		c.Flush()
	}
	before := r.reads.Load()
	for _, other := range []*cache.Cache{c, open(t, dir, cache.Options{})} {
		read(t, openBlob(t, other.Wrap(r, "store"), "a"), data, 0, size)
	}
	if r.reads.Load() != before {
		t.Error("another user of the directory reads again")
	}
	read(t, openBlob(t, c.Wrap(r, "another store"), "a"), data, 0, size)
	if r.reads.Load() == before {
		t.Error("two stores share blobs")
	}
	if s := c.Stats(); s.Damaged != 0 || s.Errors != 0 || s.Dropped != 0 || s.Hits == 0 || s.Misses == 0 {
		t.Errorf("%+v", s)
	}
}

// TestWithoutTheService: what is cached can be opened and read, if the blob was listed; the rest fails.
func TestWithoutTheService(t *testing.T) {
	r, dir := newRemote(), t.TempDir()
	data := noise(2, 3<<20)
	blobtest.Put(t, r.Mem, "a", data)
	c := open(t, dir, cache.Options{})
	s := c.Wrap(r, "store")
	if _, err := s.List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	read(t, openBlob(t, s, "a"), data, 0, 1<<20)
	c.Flush()
	r.broken.Store(true)
	opens := r.opens.Load()
	o := openBlob(t, s, "a")
	read(t, o, data, 12345, 500_000)
	if r.opens.Load() != opens {
		t.Error("the service was asked")
	}
	if _, err := o.ReadAt(make([]byte, 10), 2<<20); !errors.Is(err, errBroken) {
		t.Errorf("what is not cached: %v", err)
	}
	r.broken.Store(false)
	read(t, o, data, 2<<20, 10)
}

// TestReplaced: another blob of the same name and size is another one.
func TestReplaced(t *testing.T) {
	r, dir := newRemote(), t.TempDir()
	s := open(t, dir, cache.Options{}).Wrap(r, "store")
	old, now := noise(3, 1<<20), noise(4, 1<<20)
	blobtest.Put(t, r.Mem, "a", old)
	if _, err := s.List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	first := openBlob(t, s, "a")
	read(t, first, old, 0, 300_000)
	r.Replace("a", now) // behind its back
	p := make([]byte, 1<<20)
	if _, err := first.ReadAt(p, 0); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("an open one: %v", err)
	}
	if _, err := s.List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	read(t, openBlob(t, s, "a"), now, 0, 1<<20)
	// Removed and created by way of the cache, without a listing.
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), "a"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
	blobtest.Put(t, s, "a", old)
	read(t, openBlob(t, s, "a"), old, 0, 1<<20)
}

// TestTogether: many who miss the same are one request, and get right bytes.
func TestTogether(t *testing.T) {
	r := newRemote()
	data := noise(5, 4<<20)
	blobtest.Put(t, r.Mem, "a", data)
	c := open(t, t.TempDir(), cache.Options{Fetch: 1 << 20})
	o := openBlob(t, c.Wrap(r, "store"), "a")
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 200 {
				n := rnd.IntN(50_000)
				off := rnd.IntN(len(data) - n)
				p := make([]byte, n)
				if _, err := o.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+n]) {
					t.Errorf("%d bytes at %d: %v", n, off, err)
				}
			}
		})
	}
	wg.Wait()
	// A few more than there are units, since bytes are fetched again until they are written.
	if n := r.reads.Load(); n > 100 {
		t.Errorf("%d reads of 4 units", n)
	}
}

// TestDamage: whatever happens to the files, reads are right.
func TestDamage(t *testing.T) {
	const size = 2<<20 + 777
	for name, damage := range map[string]func(f *os.File, size int64) error{
		"header": func(f *os.File, _ int64) error { _, err := f.WriteAt([]byte{0xff}, 20); return err },
		"times":  func(f *os.File, _ int64) error { _, err := f.WriteAt(make([]byte, 4096), 4096); return err },
		"table": func(f *os.File, _ int64) error {
			_, err := f.WriteAt(noise(9, 256), 8192)
			return err
		},
		"bytes": func(f *os.File, size int64) error {
			for i := int64(12288); i < size; i += 10_000 {
				if _, err := f.WriteAt([]byte("damage"), i); err != nil {
					return err
				}
			}
			return nil
		},
		"zeros":     func(f *os.File, size int64) error { _, err := f.WriteAt(make([]byte, size-12288), 12288); return err },
		"truncated": func(f *os.File, size int64) error { return f.Truncate(size / 2) },
		"empty":     func(f *os.File, size int64) error { return f.Truncate(0) },
		"gone":      func(f *os.File, size int64) error { return os.Remove(f.Name()) },
	} {
		for _, opened := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/open=%v", name, opened), func(t *testing.T) {
				r, dir := newRemote(), t.TempDir()
				data := noise(6, size)
				blobtest.Put(t, r.Mem, "a", data)
				c := open(t, dir, cache.Options{})
				s := c.Wrap(r, "store")
				o, err := s.Open(context.Background(), "a")
				if err != nil {
					t.Fatal(err)
				}
				read(t, o, data, 0, size)
				c.Flush()
				if !opened {
					o.Close()
				}
				paths, err := c.Paths()
				if err != nil || len(paths) != 1 {
					t.Fatal(paths, err)
				}
				f, err := os.OpenFile(paths[0], os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				st, _ := f.Stat()
				if err := damage(f, st.Size()); err != nil {
					t.Fatal(err)
				}
				f.Close()
				if !opened {
					o = openBlob(t, s, "a")
				} else {
					defer o.Close()
				}
				read(t, o, data, 0, size)
				c.Flush()
				read(t, o, data, 0, size)
				c.Flush()
				read(t, openBlob(t, open(t, dir, cache.Options{}).Wrap(r, "store"), "a"), data, 0, size)
			})
		}
	}
}

// TestOpenRefuses: what is no directory, or has odd options.
func TestOpenRefuses(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Open(file, cache.Options{}); err == nil {
		t.Error("a file is a cache")
	}
	if _, err := cache.Open(t.TempDir(), cache.Options{Fetch: 1000}); err == nil {
		t.Error("1000 bytes are a unit")
	}
}

// TestClosed: a closed cache reads from the store.
func TestClosed(t *testing.T) {
	r := newRemote()
	data := noise(7, 1<<20)
	blobtest.Put(t, r.Mem, "a", data)
	c := open(t, t.TempDir(), cache.Options{})
	o := openBlob(t, c.Wrap(r, "store"), "a")
	c.Close()
	read(t, o, data, 0, 1<<20)
	c.Flush()
	c.Close()
}
