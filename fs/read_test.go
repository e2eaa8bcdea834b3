package fs

import (
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A lazy restore: each page touched is one READ of 4 KiB, whether or not the VMM gives advice.
func TestLazyFaults(t *testing.T) {
	x := spec{Name: "a", Pages: 1000, ZeroEvery: 7, Seed: 1}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyLazy})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	gfns := scattered(x.Pages, 3)
	c.do(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x})
	c.do(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x})
	st := b.stats("a", "")
	want := uint64(len(gfns))
	if st.LazyPages != want || st.LazyRequests != want+st.EvictedPages {
		t.Errorf("%d pages in %d requests, want %d", st.LazyPages, st.LazyRequests, want)
	}
	if st.PushedPages != 0 || st.PrefetchedPages != 0 || st.Errors != 0 {
		t.Errorf("%+v", st.Counters)
	}
	if st.StallSeconds <= 0 || st.Stalls.Requests != uint64(len(gfns)) {
		t.Errorf("stalls: %v s in %d requests", st.StallSeconds, st.Stalls.Requests)
	}
}

// read(2) with a large buffer is READs of many pages, at the end of the file too, but for the first pages
// of an image that is recorded.
func TestReadCalls(t *testing.T) {
	x := spec{Name: "a", Pages: 1003, ZeroEvery: 5, Seed: 2}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyLazy})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	if res := c.do(request{Op: "readall", FD: fd, Len: 1 << 20, Spec: &x}); res.N != 1003*PageSize {
		t.Errorf("%d bytes", res.N)
	}
	st := b.stats("a", "")
	if st.LazyPages+st.PushedPages < x.Pages || st.LazyRequests > 3*triedPages {
		t.Errorf("%d lazy, %d pushed in %d requests", st.LazyPages, st.PushedPages, st.LazyRequests)
	}
	if res := c.do(request{Op: "pread", FD: fd, Off: 1003 * PageSize, Len: 10}); len(res.Data) != 0 {
		t.Error("bytes after the end")
	}
}

// Readers that go past the page cache may ask for any bytes; they are no first touches.
func TestReadDirect(t *testing.T) {
	x := spec{Name: "a", Pages: 100, Seed: 3}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyLazy})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY|unix.O_DIRECT)
	want := make([]byte, 3*PageSize)
	for i := range uint64(3) {
		x.fillPage(10+i, want[i*PageSize:][:PageSize])
	}
	res := c.do(request{Op: "pread", FD: fd, Off: 10*PageSize + 100, Len: 2*PageSize + 50})
	if string(res.Data) != string(want[100:2*PageSize+150]) {
		t.Error("wrong bytes")
	}
	res = c.do(request{Op: "pread", FD: fd, Off: 99*PageSize + 1, Len: 2 * PageSize})
	if len(res.Data) != PageSize-1 {
		t.Errorf("%d bytes at the end", len(res.Data))
	}
	if st := b.stats("a", ""); st.LazyPages != 0 || st.LazyRequests == 0 {
		t.Errorf("%+v", st.Counters)
	}
}

// A page that cannot be read is SIGBUS or EIO, all others are right.
func TestReadErrors(t *testing.T) {
	x := spec{Name: "a", Pages: 200, Seed: 4}
	store := newFakeStore(x)
	var broken atomic.Bool
	broken.Store(true)
	store.onRead = func(gfn uint64) error {
		if gfn%10 == 3 && broken.Load() {
			return errFake
		}
		return nil
	}
	b := mounted(t, store, Options{Policy: PolicyLazy})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	if res := c.try(request{Op: "touch", Map: m, GFNs: upTo(200), Spec: &x}); res.Bus != 20 {
		t.Errorf("%d SIGBUS, want 20: %s", res.Bus, res.Err)
	}
	res := c.try(request{Op: "pread", FD: fd, Off: 13 * PageSize, Len: PageSize})
	if res.Errno != unix.EIO {
		t.Errorf("pread: %v", res.Err)
	}
	if st := b.stats("a", ""); st.Errors < 21 {
		t.Errorf("%d errors", st.Errors)
	}
	// The pack is mended: nothing wrong was kept.
	broken.Store(false)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(200), Spec: &x})
}

// A store that cannot open the image fails the open, and the next one may work.
func TestOpenError(t *testing.T) {
	store := newFakeStore(spec{Name: "a", Pages: 10})
	var broken atomic.Bool
	broken.Store(true)
	store.onOpen = func(string) error {
		if broken.Load() {
			return errFake
		}
		return nil
	}
	store.fileError = errFake
	store.specs[0].Files = map[string]string{"state": "x"}
	b := mounted(t, store, Options{})
	c := b.client()
	for _, path := range []string{"a/memory", "a/clones/x/memory"} {
		if res := c.try(request{Op: "open", Path: b.path(path)}); res.Errno != unix.EIO {
			t.Errorf("%s: %q", path, res.Err)
		}
	}
	if res := c.try(request{Op: "readfile", Path: b.path("a/state")}); res.Errno != unix.EIO {
		t.Errorf("state: %q", res.Err)
	}
	broken.Store(false)
	c.close(c.open(b.path("a/memory"), unix.O_RDONLY))
}

// Interrupts do not end a READ: a signal to a thread that waits for a page must not be a SIGBUS.
func TestReadIgnoresInterrupts(t *testing.T) {
	x := spec{Name: "a", Pages: 10, Seed: 5}
	store := newFakeStore(x)
	reading, release := make(chan struct{}), make(chan struct{})
	store.onRead = func(uint64) error {
		close(reading)
		<-release
		return nil
	}
	b := mounted(t, store, Options{Policy: PolicyLazy})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	wait := c.start(request{Op: "pread", FD: fd, Len: PageSize})
	<-reading
	for range 20 {
		c.cmd.Process.Signal(syscall.SIGURG)
	}
	close(release)
	if res := wait(); res.Err != "" || x.check(0, res.Data) != nil {
		t.Errorf("%q", res.Err)
	}
}

// Images that nobody has open are kept for the next restore, but not without end.
func TestIdleImages(t *testing.T) {
	var specs []spec
	for i := range 2 * maxIdle {
		specs = append(specs, spec{Name: string(rune('a' + i)), Pages: 10})
	}
	store := newFakeStore(specs...)
	b := mounted(t, store, Options{Policy: PolicyLazy})
	c := b.client()
	for range 2 {
		c.close(c.open(b.path("p/memory"), unix.O_RDONLY))
	}
	for _, x := range specs {
		c.close(c.open(b.path(x.Name, "memory"), unix.O_RDONLY))
	}
	count := func() (open int) {
		for _, x := range specs {
			_, n := store.opened(x.Name)
			open += n
		}
		return open
	}
	eventually(t, "the oldest are closed", func() bool { return count() == maxIdle })
	if all, _ := store.opened("p"); all > 2 {
		t.Errorf("opened %d times", all)
	}
	b.CloseIdle()
	if n := count(); n != 0 {
		t.Errorf("%d open after CloseIdle", n)
	}
	if n := b.InUse("p"); n != 0 {
		t.Errorf("%d in use", n)
	}
}
