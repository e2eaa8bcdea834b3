// Package blobtest has the tests that every blob.Store must pass, and a store in memory for tests. Its
// packages errblob and crashfs inject failures into a store and into the file system under it.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/blob"
)

// Suite describes the store under test.
type Suite struct {
	// New makes an empty store for one test.
	New func(t *testing.T) blob.Store
	// Reopen returns the store as the next process would find it, whatever was left open. Nil: the
	// store does not survive its process.
	Reopen func(t *testing.T, s blob.Store) blob.Store
	// OneWriter is a store that does not tell writers of one name apart that commit at the same time.
	OneWriter bool
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	t.Run("RoundTrip", s.roundTrip)
	t.Run("Invisible", s.invisible)
	t.Run("Exists", s.exists)
	t.Run("NotFound", s.notFound)
	t.Run("Names", s.names)
	t.Run("List", s.list)
	t.Run("Tags", s.tags)
	t.Run("Ranges", s.ranges)
	t.Run("ClosedWriter", s.closedWriter)
	t.Run("RemovedWhileOpen", s.removedWhileOpen)
	t.Run("Concurrent", s.concurrent)
	t.Run("Canceled", s.canceled)
	t.Run("Optional", s.optional)
	t.Run("Uncommitted", s.uncommitted)
}

// Put commits a blob of the given content.
func Put(t testing.TB, s blob.Store, name string, data []byte) {
	t.Helper()
	w, err := s.Create(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(data); err != nil || n != len(data) {
		t.Fatalf("write: %d, %v", n, err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// Get reads a whole blob.
func Get(t testing.TB, s blob.Store, name string) []byte {
	t.Helper()
	o, err := s.Open(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	b := make([]byte, o.Size())
	if n, err := o.ReadAt(b, 0); n != len(b) || err != nil && err != io.EOF {
		t.Fatalf("read: %d, %v", n, err)
	}
	return b
}

func random(n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func (s Suite) roundTrip(t *testing.T) {
	st := s.New(t)
	for _, n := range []int{0, 1, 4096, 1<<20 + 7} {
		name := fmt.Sprintf("a/b-%d", n)
		Put(t, st, name, random(n))
		if !bytes.Equal(Get(t, st, name), random(n)) {
			t.Errorf("%d bytes came back changed", n)
		}
	}
}

func (s Suite) invisible(t *testing.T) {
	st, ctx := s.New(t), context.Background()
	w, err := st.Create(ctx, "x/y")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(random(100)); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if _, err := st.Open(ctx, "x/y"); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("open: %v", err)
		}
		if l, err := st.List(ctx, ""); err != nil || len(l) != 0 {
			t.Errorf("list: %v, %v", l, err)
		}
	}
	check()
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	check()
	Put(t, st, "x/y", random(3))
}

func (s Suite) exists(t *testing.T) {
	st, ctx := s.New(t), context.Background()
	first, err := st.Create(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	second, err := st.Create(ctx, "one")
	if err != nil && !errors.Is(err, blob.ErrExists) {
		t.Fatal(err)
	}
	_, _ = first.Write([]byte("first"))
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	if second != nil {
		_, _ = second.Write([]byte("second"))
		if err := second.Commit(); !errors.Is(err, blob.ErrExists) {
			t.Errorf("second commit: %v", err)
		}
		if err := second.Abort(); err != nil {
			t.Errorf("abort after a failed commit: %v", err)
		}
	}
	if _, err := st.Create(ctx, "one"); !errors.Is(err, blob.ErrExists) {
		t.Errorf("create of an existing name: %v", err)
	}
	if got := string(Get(t, st, "one")); got != "first" {
		t.Errorf("got %q", got)
	}
	if l, err := st.List(ctx, ""); err != nil || len(l) != 1 {
		t.Errorf("list: %v, %v", l, err)
	}
}

func (s Suite) notFound(t *testing.T) {
	st, ctx := s.New(t), context.Background()
	Put(t, st, "dir/file", nil)
	for _, name := range []string{"none", "dir", "dir/none", "dir/file/none", "none/none"} {
		if _, err := st.Open(ctx, name); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("open %s: %v", name, err)
		}
		if err := st.Remove(ctx, name); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
}

func (s Suite) names(t *testing.T) {
	st := s.New(t)
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".hidden", "a/.hidden",
		"a\x00b", "a b", "a\nb", "ä", string(make([]byte, 1000)),
	} {
		if _, err := st.Create(context.Background(), name); !errors.Is(err, blob.ErrName) {
			t.Errorf("create %q: %v", name, err)
		}
	}
}

func (s Suite) list(t *testing.T) {
	st, ctx := s.New(t), context.Background()
	for _, name := range []string{"p/b.2", "p/a.1", "p/b.10", "q/a", "p2"} {
		Put(t, st, name, random(len(name)))
	}
	if err := st.Remove(ctx, "p/b.10"); err != nil {
		t.Fatal(err)
	}
	pa, pb := blob.Info{Name: "p/a.1", Size: 5}, blob.Info{Name: "p/b.2", Size: 5}
	p2, qa := blob.Info{Name: "p2", Size: 2}, blob.Info{Name: "q/a", Size: 3}
	for prefix, want := range map[string][]blob.Info{
		"":     {pa, pb, p2, qa},
		"p/":   {pa, pb},
		"p/b":  {pb},
		"p":    {pa, pb, p2},
		"z":    nil,
		"z/":   nil,
		"q/a/": nil,
	} {
		got, err := st.List(ctx, prefix)
		if err != nil {
			t.Errorf("list %q: %v", prefix, err)
		}
		for i := range got {
			got[i].Tag = "" // see tags
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("list %q: %s", prefix, d)
		}
	}
}

// tags checks that a name which comes again with other bytes has another tag, where there are tags at all.
func (s Suite) tags(t *testing.T) {
	st, ctx := s.New(t), context.Background()
	tag := func() string {
		t.Helper()
		list, err := st.List(ctx, "p/")
		if err != nil || len(list) != 1 {
			t.Fatalf("list: %v, %v", list, err)
		}
		return list[0].Tag
	}
	seen := map[string]bool{}
	for i := range 20 {
		Put(t, st, "p/a", append(random(5), byte(i)))
		first := tag()
		if again := tag(); again != first {
			t.Fatalf("the tag changes: %q, %q", first, again)
		}
		if first == "" {
			return // the driver does not know
		}
		if seen[first] {
			t.Fatalf("tag %q comes again", first)
		}
		seen[first] = true
		if err := st.Remove(ctx, "p/a"); err != nil {
			t.Fatal(err)
		}
	}
}

func (s Suite) ranges(t *testing.T) {
	st := s.New(t)
	data := random(10000)
	Put(t, st, "r", data)
	o, err := st.Open(context.Background(), "r")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		off := rng.IntN(len(data))
		b := make([]byte, rng.IntN(len(data)-off+1))
		if n, err := o.ReadAt(b, int64(off)); n != len(b) || err != nil && err != io.EOF ||
			!bytes.Equal(b, data[off:off+len(b)]) {
			t.Fatalf("read %d at %d: %d, %v", len(b), off, n, err)
		}
	}
	if n, err := o.ReadAt(make([]byte, 20), int64(len(data)-10)); n != 10 || err != io.EOF {
		t.Errorf("read over the end: %d, %v", n, err)
	}
}

func (s Suite) closedWriter(t *testing.T) {
	st := s.New(t)
	for _, end := range []func(blob.Writer) error{blob.Writer.Commit, blob.Writer.Abort} {
		w, err := st.Create(context.Background(), "w")
		if err != nil {
			t.Fatal(err)
		}
		if err := end(w); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); !errors.Is(err, blob.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if err := w.Commit(); !errors.Is(err, blob.ErrClosed) {
			t.Errorf("commit: %v", err)
		}
		if err := w.Abort(); err != nil {
			t.Errorf("abort: %v", err)
		}
		_ = st.Remove(context.Background(), "w")
	}
}

func (s Suite) removedWhileOpen(t *testing.T) {
	st, ctx := s.New(t), context.Background()
	data := random(5000)
	Put(t, st, "gone", data)
	o, err := st.Open(ctx, "gone")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := st.Remove(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	Put(t, st, "gone", random(5001)) // the name is free again
	b := make([]byte, len(data))
	if _, err := o.ReadAt(b, 0); err == nil && !bytes.Equal(b, data) {
		t.Error("an open object changed its content")
	}
}

func (s Suite) concurrent(t *testing.T) {
	if s.OneWriter {
		t.Skip("this store is for one writer")
	}
	st, ctx := s.New(t), context.Background()
	var wg sync.WaitGroup
	winners := make([]int, 8)
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				w, err := st.Create(ctx, fmt.Sprintf("d%d/n%d", i%3, i))
				if err != nil {
					continue
				}
				_, _ = w.Write(random(1000 + i))
				if w.Commit() == nil {
					winners[g]++
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range winners {
		total += n
	}
	if total != 20 {
		t.Errorf("%d commits of 20 names succeeded", total)
	}
	for i := range 20 {
		if !bytes.Equal(Get(t, st, fmt.Sprintf("d%d/n%d", i%3, i)), random(1000+i)) {
			t.Errorf("blob %d has the wrong content", i)
		}
	}
}

func (s Suite) canceled(t *testing.T) {
	st := s.New(t)
	Put(t, st, "a", nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := st.Create(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if _, err := st.Open(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	if _, err := st.List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if err := st.Remove(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("remove: %v", err)
	}
	Get(t, st, "a")
}

func (s Suite) optional(t *testing.T) {
	st, ctx := s.New(t), context.Background()
	data := random(100000)
	Put(t, st, "o", data)
	if err := blob.Drop(ctx, st, "o"); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(Get(t, st, "o"), data) {
		t.Error("changed")
	}
}

func (s Suite) uncommitted(t *testing.T) {
	if s.Reopen == nil {
		t.Skip("this store does not outlive its process")
	}
	st, ctx := s.New(t), context.Background()
	Put(t, st, "p/kept", random(100))
	w, err := st.Create(ctx, "p/lost")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(random(5000)); err != nil {
		t.Fatal(err)
	}
	st = s.Reopen(t, st)
	if l, err := st.List(ctx, ""); err != nil || len(l) != 1 || l[0].Name != "p/kept" {
		t.Errorf("list: %v, %v", l, err)
	}
	Put(t, st, "p/lost", random(7))
	if !bytes.Equal(Get(t, st, "p/kept"), random(100)) {
		t.Error("committed blob changed")
	}
}
