package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A mixture is a composed file: a stored file, and behind it some pages of the memory.
type mixture struct {
	io.ReaderAt
	closed *atomic.Int64
	stored File
}

func (m mixture) Close() error {
	m.closed.Add(1)
	return m.stored.Close()
}

// mixed describes such a file, and counts how often it is opened and closed.
func mixed(name, stored string, size int64, opened, closed *atomic.Int64) Composed {
	return Composed{Name: name, Size: size, Open: func(
		_ context.Context, m Image, file func(string) (File, error),
	) (File, error) {
		f, err := file(stored)
		if err != nil {
			return nil, err
		}
		opened.Add(1)
		return mixture{readerAt(func(p []byte, off int64) (int, error) {
			n := 0
			for ; n < len(p) && off+int64(n) < size; n++ {
				at := off + int64(n)
				if at < 3 {
					if _, err := f.ReadAt(p[n:n+1], at); err != nil {
						return n, err
					}
					continue
				}
				page := make([]byte, PageSize)
				if err := m.ReadPage(uint64(at-3)/PageSize, page); err != nil {
					return n, err
				}
				n += copy(p[n:], page[(at-3)%PageSize:]) - 1
			}
			return n, nil
		}), closed, f}, nil
	}}
}

type readerAt func(p []byte, off int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }

// namedSpec has an alias, a composed file, and names that are taken.
func namedSpec(opened, closed *atomic.Int64) spec {
	x := wsSpec()
	x.Files = map[string]string{"state": "cpu"}
	x.Own = Names{
		Memory: []string{"mem", "state", "clones"},
		Composed: []Composed{
			mixed("stream", "state", 3+2*PageSize, opened, closed),
			mixed("info.json", "state", 3, opened, closed),
		},
	}
	return x
}

// TestNames: further names of memory are the same inode, in the checkpoint and in each clone; a composed file
// has its bytes; what the directory has already keeps its meaning.
func TestNames(t *testing.T) {
	var opened, closed atomic.Int64
	x := namedSpec(&opened, &closed)
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	for dir, want := range map[string][]string{
		"a":          {"clones", "info.json", "mem", "memory", "state", "stats.json", "stream"},
		"a/clones/x": {"info.json", "mem", "memory", "state", "stats.json", "stream"},
	} {
		if d := cmp.Diff(want, sorted(c.do(request{Op: "readdir", Path: b.path(dir)}).Names)); d != "" {
			t.Errorf("%s: %s", dir, d)
		}
		memory := c.do(request{Op: "stat", Path: b.path(dir, "memory")})
		alias := c.do(request{Op: "stat", Path: b.path(dir, "mem")})
		if memory.Ino != alias.Ino || memory.N != alias.N || memory.Links != 2 || alias.Links != 2 {
			t.Errorf("%s: memory is inode %d with %d links, mem %d with %d", dir, memory.Ino, memory.Links, alias.Ino,
				alias.Links)
		}
		if st := c.do(request{Op: "stat", Path: b.path(dir, "state")}); st.N != 3 {
			t.Errorf("%s/state is not what was stored: %d bytes", dir, st.N)
		}
	}
	if st := c.do(request{Op: "stat", Path: b.path("a/clones")}); st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("clones has mode %o", st.Mode)
	}
	if got := string(c.do(request{Op: "readfile", Path: b.path("a/info.json")}).Data); got[0] != '{' {
		t.Errorf("info.json is %q", got)
	}
	want := make([]byte, 2*PageSize)
	x.fillPage(0, want[:PageSize])
	x.fillPage(1, want[PageSize:])
	want = append([]byte("cpu"), want...)
	for _, path := range []string{"a/stream", "a/clones/x/stream"} {
		if got := c.do(request{Op: "readfile", Path: b.path(path)}).Data; !bytes.Equal(got, want) {
			t.Errorf("%s: %d other bytes", path, len(got))
		}
	}
	fd := c.open(b.path("a/stream"), unix.O_RDONLY)
	if got := c.do(request{Op: "pread", FD: fd, Off: PageSize, Len: PageSize}).Data; !bytes.Equal(got,
		want[PageSize:2*PageSize]) {
		t.Error("a part of the stream is not that part")
	}
	if got := c.do(request{Op: "extents", FD: fd}).Extents; !slices.Equal(got, []int64{0, int64(len(want))}) {
		t.Errorf("the stream has its data at %v", got)
	}
	if res := c.try(request{Op: "open", Path: b.path("a/stream"), Flags: unix.O_RDWR}); res.Errno != unix.EROFS {
		t.Errorf("the stream is opened for writing: %q", res.Err)
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("it was opened %d times", n)
	}
	c.close(fd)
	eventually(t, "it is closed", func() bool { return b.InUse("a") == 0 })
	b.CloseIdle()
	if o, n := opened.Load(), closed.Load(); o != n {
		t.Errorf("it was opened %d times, and closed %d times", o, n)
	}
}

// Opening memory by another name is the request to restore, and machines that know it by different names
// share one page cache.
func TestAliasRestores(t *testing.T) {
	x := wsSpec()
	x.Own = Names{Memory: []string{"mem"}}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	fd := c.open(b.path("a/mem"), unix.O_RDONLY)
	set := uint64(0)
	for _, r := range x.WS {
		set += r[1]
	}
	if st := b.stats("a", ""); st.PrefetchedPages != set {
		t.Errorf("%d pages were prefetched, want %d", st.PrefetchedPages, set)
	}
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
	lazy := b.stats("a", "").LazyRequests
	other := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	c.do(request{Op: "touch", Map: other, GFNs: upTo(x.Pages), Spec: &x})
	if st := b.stats("a", ""); st.LazyRequests > lazy+st.EvictedPages {
		t.Errorf("%d READs by the first name, %d with the second", lazy, st.LazyRequests)
	}
	clone := c.mapFile(c.open(b.path("a/clones/x/mem"), unix.O_RDWR), x.Pages)
	c.do(request{Op: "touch", Map: clone, GFNs: upTo(x.Pages), Spec: &x})
	if st := b.stats("a", "x"); st.Open != 1 || st.PrefetchedPages != set {
		t.Errorf("the clone: %+v", st.Counters)
	}
}

// What a composed file cannot give is EIO, at the open where that is known, and never other bytes; the next
// open tries again.
func TestComposedFails(t *testing.T) {
	var broken, panics atomic.Bool
	x := spec{Name: "a", Pages: 64}
	x.Own.Composed = []Composed{{Name: "stream", Size: 64 * PageSize, Open: func(
		_ context.Context, m Image, _ func(string) (File, error),
	) (File, error) {
		if panics.Load() {
			panic("injected")
		}
		if broken.Load() {
			return nil, errFake
		}
		return pageFile{m}, nil
	}}}
	store := newFakeStore(x)
	store.onRead = func(gfn uint64) error {
		if gfn == 40 {
			return errFake
		}
		return nil
	}
	b := mounted(t, store, Options{})
	c := b.client()
	broken.Store(true)
	for _, set := range []func(bool){func(bool) {}, panics.Store} {
		set(true)
		if res := c.try(request{Op: "open", Path: b.path("a/stream")}); res.Errno != unix.EIO {
			t.Errorf("an open of what cannot be composed: %q", res.Err)
		}
		set(false)
	}
	if n := b.InUse("a"); n != 0 {
		t.Errorf("%d files are open", n)
	}
	broken.Store(false)
	fd := c.open(b.path("a/stream"), unix.O_RDONLY)
	for gfn := range int64(64) {
		res := c.try(request{Op: "pread", FD: fd, Off: gfn * PageSize, Len: PageSize})
		switch {
		case gfn == 40 && res.Errno != unix.EIO:
			t.Errorf("page %d: %q, %d bytes", gfn, res.Err, len(res.Data))
		case gfn != 40 && (res.Err != "" || x.check(uint64(gfn), res.Data) != nil):
			t.Errorf("page %d: %q, or other bytes", gfn, res.Err)
		}
	}
	c.close(fd)
}

// A pageFile is the memory as a composed file. It ends early where a page is missing.
type pageFile struct{ m Image }

func (f pageFile) Close() error { return nil }

func (f pageFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off%PageSize != 0 {
		return 0, errors.New("not a page")
	}
	for ; n+PageSize <= len(p); n += PageSize {
		if err := f.m.ReadPage(uint64(off+int64(n))/PageSize, p[n:n+PageSize]); err != nil {
			return n, nil // a short answer without an error is none
		}
	}
	return n, nil
}

// A long listing has every name once, wherever the buffers end.
func TestNamesAreListedOnce(t *testing.T) {
	x := spec{Name: "a", Pages: 8, Files: map[string]string{}}
	want := []string{"clones", "info.json", "memory", "stats.json"}
	for i := range 400 {
		name := fmt.Sprintf("another-name-of-memory-%03d", i)
		x.Own.Memory = append(x.Own.Memory, name)
		want = append(want, name)
	}
	b := mounted(t, newFakeStore(x), Options{})
	got := b.client().do(request{Op: "readdir", Path: b.path("a")}).Names
	if d := cmp.Diff(sorted(want), sorted(got)); d != "" {
		t.Error(d)
	}
}

// Names that no directory can have are an error of the store that gives them.
func TestNamesAreChecked(t *testing.T) {
	open := func(context.Context, Image, func(string) (File, error)) (File, error) { return nil, errFake }
	for _, n := range []Names{
		{Memory: []string{"a/b"}},
		{Memory: []string{".."}},
		{Memory: []string{""}},
		{Memory: []string{"a", "a"}},
		{Memory: []string{"a"}, Composed: []Composed{{Name: "a", Open: open}}},
		{Composed: []Composed{{Name: "a", Size: -1, Open: open}}},
		{Composed: []Composed{{Name: "a"}}},
	} {
		if err := n.check(); err == nil {
			t.Errorf("%+v is taken", n)
		}
	}
	good := Names{Memory: []string{"mem"}, Composed: []Composed{{Name: "b", Open: open}}}
	if err := good.check(); err != nil {
		t.Error(err)
	}
}

// Many open, read and close a composed file while its image is made cold, closed when it is idle, and gets
// another working set: every byte is right, and what was opened is closed.
func TestComposedByMany(t *testing.T) {
	var opened, closed atomic.Int64
	x := namedSpec(&opened, &closed)
	store := newFakeStore(x)
	b := mounted(t, store, Options{Policy: PolicyLazy})
	c := b.client()
	want := c.do(request{Op: "readfile", Path: b.path("a/stream")}).Data
	stop := make(chan struct{})
	var disturber, readers sync.WaitGroup
	disturber.Go(func() {
		for revision := uint32(1); ; revision++ {
			select {
			case <-stop:
				return
			default:
			}
			b.CloseIdle()
			if err := b.Drop(t.Context(), "a"); err != nil {
				t.Error(err)
			}
			y := x
			y.Revision = revision
			store.set(y)
			if err := b.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 8 {
		readers.Go(func() {
			for range 40 {
				fd := c.try(request{Op: "open", Path: b.path("a/stream")})
				memory := c.try(request{Op: "open", Path: b.path("a/mem")})
				if fd.Err != "" || memory.Err != "" {
					t.Errorf("open: %s, %s", fd.Err, memory.Err)
					return
				}
				c.try(request{Op: "evict", FD: int(fd.N)})
				got := c.try(request{Op: "pread", FD: int(fd.N), Len: len(want) + 1})
				if got.Err != "" || !bytes.Equal(got.Data, want) {
					t.Errorf("%d bytes, %s, want %d", len(got.Data), got.Err, len(want))
				}
				c.try(request{Op: "close", FD: int(fd.N)})
				c.try(request{Op: "close", FD: int(memory.N)})
			}
		})
	}
	readers.Wait()
	close(stop)
	disturber.Wait()
	eventually(t, "all is closed", func() bool { return b.InUse("a") == 0 })
	b.CloseIdle()
	if o, n := opened.Load(), closed.Load(); o != n || o == 0 {
		t.Errorf("it was opened %d times, and closed %d times", o, n)
	}
	if all, open := store.opened("a"); open != 0 {
		t.Errorf("%d images of %d are open", open, all)
	}
}
