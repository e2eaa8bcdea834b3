package fs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Private mappings of clones are written to freely: nothing of it reaches the server.
func TestClonePrivate(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	fd := c.open(b.path("a/clones/m1/memory"), unix.O_RDWR)
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "poke", Map: m, Off: 123, Value: 7})
	if got := c.do(request{Op: "peek", Map: m, Off: 123}).N; got != 7 {
		t.Errorf("own page reads %d", got)
	}
	other := c.mapFile(c.open(b.path("a/clones/m1/memory"), unix.O_RDWR), x.Pages)
	c.do(request{Op: "touch", Map: other, GFNs: upTo(100), Spec: &x})
	st := b.stats("a", "m1")
	if st.Poisoned || st.PrefetchedPages != 1024 || st.Opens != 2 {
		t.Errorf("%+v", st)
	}
	if all := b.stats("a", ""); all.PrefetchedPages != 1024 || all.LazyPages != st.LazyPages {
		t.Errorf("image %+v, clone %+v", all.Counters, st.Counters)
	}
	if st := b.stats("a", "nobody"); st.Opens != 0 || st.Open != 0 {
		t.Errorf("%+v", st)
	}
}

// A write through a shared mapping of a clone is refused and makes that clone unreadable. Nothing
// else ever sees it.
func TestCloneSharedWriter(t *testing.T) {
	x := spec{Name: "a", Pages: 64, Seed: 3}
	b := mounted(t, newFakeStore(x), Options{})
	c := b.client()
	own := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	other := c.mapFile(c.open(b.path("a/clones/other/memory"), unix.O_RDWR), x.Pages)
	c.do(request{Op: "touch", Map: own, GFNs: upTo(8), Spec: &x})
	c.do(request{Op: "touch", Map: other, GFNs: upTo(8), Spec: &x})

	fd := c.open(b.path("a/clones/bad/memory"), unix.O_RDWR)
	shared := int(c.do(request{
		Op: "map", FD: fd, Len: int(x.Pages * PageSize),
		Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_SHARED,
	}).N)
	peer := c.mapFile(c.open(b.path("a/clones/bad/memory"), unix.O_RDONLY), x.Pages)
	c.do(request{Op: "touch", Map: peer, GFNs: []uint64{1, 2, 3}, Spec: &x})
	c.do(request{Op: "poke", Map: shared, Off: 2*PageSize + 5, Value: 0xbd})
	// Both mappings of the others, and fresh reads of them, have the image's bytes throughout.
	whole := func() {
		t.Helper()
		for _, m := range []int{own, other} {
			c.do(request{Op: "touch", Map: m, GFNs: upTo(64), Spec: &x})
		}
		for _, path := range []string{"a/memory", "a/clones/other/memory", "a/clones/new/memory"} {
			fd := c.open(b.path(path), unix.O_RDONLY)
			c.do(request{Op: "readall", FD: fd, Len: 1 << 16, Spec: &x})
			c.close(fd)
		}
	}
	whole()
	if res := c.try(request{Op: "msync", Map: shared}); res.Errno != unix.EROFS && res.Errno != unix.EIO {
		t.Errorf("msync: %q", res.Err)
	}
	eventually(t, "the clone is poisoned", func() bool { return b.stats("a", "bad").Poisoned })
	eventually(t, "its pages are gone", func() bool {
		return c.do(request{Op: "cached", FD: fd}).N == 0
	})
	if res := c.try(request{Op: "touch", Map: peer, GFNs: upTo(64)}); res.Bus != 64 {
		t.Errorf("%d of 64 pages of the poisoned clone give SIGBUS", res.Bus)
	}
	if res := c.try(request{Op: "pread", FD: fd, Len: PageSize}); res.Errno != unix.EIO {
		t.Errorf("pread: %q", res.Err)
	}
	if res := c.try(request{Op: "open", Path: b.path("a/clones/bad/memory")}); res.Errno != unix.EIO {
		t.Errorf("open: %q", res.Err)
	}
	whole()
}

// write(2) is no way round.
func TestCloneWriteCall(t *testing.T) {
	x := spec{Name: "a", Pages: 64, Seed: 3}
	b := mounted(t, newFakeStore(x), Options{})
	c := b.client()
	fd := c.open(b.path("a/clones/bad/memory"), unix.O_RDWR)
	c.do(request{Op: "pread", FD: fd, Len: PageSize})
	res := c.try(request{Op: "pwrite", FD: fd, Off: 10, Len: 100, Value: 1})
	if !errors.Is(res.Errno, unix.EROFS) {
		t.Errorf("pwrite: %q", res.Err)
	}
	eventually(t, "EIO", func() bool {
		return c.try(request{Op: "pread", FD: fd, Len: PageSize}).Errno == unix.EIO
	})
}

// What a forgotten clone has counted stays in the image's numbers; a poisoned clone stays poisoned.
func TestCloneForgotten(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	c.close(c.open(b.path("a/clones/x/memory"), unix.O_RDONLY))
	fd := c.open(b.path("a/clones/y/memory"), unix.O_RDWR)
	c.try(request{Op: "pwrite", FD: fd, Len: 1})
	c.close(fd)
	e := b.tree.entry("a")
	eventually(t, "both are closed", func() bool { return b.InUse("a") == 0 })
	// The kernel drops the names, and the inodes with them.
	clones := b.tree.peek(e.child(dirClones))
	for _, id := range []string{"x", "y"} {
		if st := b.kernel.EntryNotify(clones, id); !st.Ok() {
			t.Fatal(st)
		}
	}
	eventually(t, "x is forgotten", func() bool { return len(e.memories()) == 1 })
	if st := b.stats("a", ""); st.Prefetches != 2 || st.PrefetchedPages < 1024 {
		t.Errorf("%+v", st.Counters)
	}
	if res := c.try(request{Op: "open", Path: b.path("a/clones/y/memory")}); res.Errno != unix.EIO {
		t.Errorf("the poisoned clone opens: %q", res.Err)
	}
	fd = c.open(b.path("a/clones/x/memory"), unix.O_RDWR)
	if got := c.do(request{Op: "cached", FD: fd}).N; got != 1024 {
		t.Errorf("x as a new clone has %d pages", got)
	}
}
