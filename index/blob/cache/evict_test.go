package cache_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/thawfs/thaw/index/blob/cache"
	"github.com/thawfs/thaw/tests/blobtest"
)

// TestEviction: what was not used for longest goes, by whoever uses the directory, and what is pinned stays.
func TestEviction(t *testing.T) {
	const size = 4 << 20
	r, dir := newRemote(), t.TempDir()
	var data [4][]byte
	for i := range data {
		data[i] = noise(i, size)
		blobtest.Put(t, r.Mem, fmt.Sprint("b", i), data[i])
	}
	var now atomic.Uint32
	now.Store(1)
	limited := func(n int64) *cache.Cache {
		c := open(t, dir, cache.Options{Size: n})
		c.SetClock(now.Load)
		return c
	}
	wide := limited(100 << 20)
	s := wide.Wrap(r, "store")
	for i := range data {
		now.Add(1)
		read(t, openBlob(t, s, fmt.Sprint("b", i)), data[i], 0, size)
	}
	now.Add(1)
	read(t, openBlob(t, s, "b0"), data[0], 1<<20, 1<<20) // one slot of it is used again
	wide.Flush()
	pinned := openBlob(t, s, "b1")
	if err := pinned.Pin(); err != nil {
		t.Fatal(err)
	}
	narrow := limited(8 << 20)
	narrow.MakeRoom()
	if n, err := narrow.Usage(); err != nil || n > 8<<20 || n < 6<<20 {
		t.Errorf("%d bytes are used, %v", n, err)
	}
	// reads is how many bytes must be fetched to read a range.
	fetched := func(i, off, n int) int64 {
		t.Helper()
		before := r.bytes.Load()
		read(t, openBlob(t, limited(100<<20).Wrap(r, "store"), fmt.Sprint("b", i)), data[i], off, n)
		return r.bytes.Load() - before
	}
	if n := fetched(1, 0, size); n != 0 {
		t.Errorf("%d bytes of the pinned blob are gone", n)
	}
	if n := fetched(0, 1<<20, 1<<20); n != 0 {
		t.Error("the slot that was used last is gone")
	}
	if n := fetched(0, 0, 1<<20); n != 1<<20 {
		t.Errorf("%d bytes of the oldest slot were fetched", n)
	}
	if n := fetched(2, 0, size); n != size {
		t.Errorf("%d bytes of what was old were fetched", n)
	}
	// Without the pin it can go.
	pinned.Close()
	none := limited(1)
	none.MakeRoom()
	if n := fetched(1, 0, size); n != size {
		t.Errorf("%d bytes of what was pinned were fetched", n)
	}
}

// TestFullOfPins: if nothing can go, nothing more comes, and all can be read.
func TestFullOfPins(t *testing.T) {
	r, dir := newRemote(), t.TempDir()
	a, b := noise(1, 4<<20), noise(2, 4<<20)
	blobtest.Put(t, r.Mem, "a", a)
	blobtest.Put(t, r.Mem, "b", b)
	c := open(t, dir, cache.Options{Size: 2 << 20})
	s := c.Wrap(r, "store")
	pinned := openBlob(t, s, "a")
	if err := pinned.Pin(); err != nil {
		t.Fatal(err)
	}
	read(t, pinned, a, 0, 4<<20)
	c.Flush()
	c.MakeRoom()
	if !c.Stats().Full {
		t.Error("there is room")
	}
	read(t, openBlob(t, s, "b"), b, 0, 4<<20)
	c.Flush()
	if used, err := c.Usage(); err != nil || used > 5<<20 {
		t.Errorf("%d bytes, %v", used, err)
	}
	reads := r.reads.Load()
	read(t, pinned, a, 0, 4<<20)
	if r.reads.Load() != reads {
		t.Error("a pinned blob is read again")
	}
	pinned.Close()
	c.MakeRoom()
	if s := c.Stats(); s.Full || s.Evicted == 0 {
		t.Errorf("when nothing is pinned: %+v", s)
	}
}

// TestBounded: what many reads leave is no more than the limit and what is written between two looks at it.
func TestBounded(t *testing.T) {
	const limit = 8 << 20
	r, dir := newRemote(), t.TempDir()
	c := open(t, dir, cache.Options{Size: limit})
	s := c.Wrap(r, "store")
	for i := range 30 {
		data := noise(i, 1<<20)
		blobtest.Put(t, r.Mem, fmt.Sprint("b", i), data)
		o, err := s.Open(t.Context(), fmt.Sprint("b", i))
		if err != nil {
			t.Fatal(err)
		}
		read(t, o, data, 0, 1<<20)
		o.Close()
		c.Flush()
		if n, err := c.Usage(); err != nil || n > limit+limit/32+2<<20 {
			t.Fatalf("%d bytes after %d reads, %v", n, i, err)
		}
	}
	paths, err := c.Paths()
	if err != nil || len(paths) > 10 {
		t.Errorf("%d files are left, %v", len(paths), err)
	}
}

// TestForeignFiles: what is not of the cache is left alone.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{dir + "/x", dir + "/ab"} {
		if err := os.WriteFile(name, make([]byte, 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, dir, cache.Options{Size: 1})
	c.MakeRoom()
	if _, err := os.Stat(dir + "/x"); err != nil {
		t.Error(err)
	}
}
