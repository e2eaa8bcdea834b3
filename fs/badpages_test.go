package fs

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Pages that cannot be read are EIO in every way of reading, and nothing else is: prefetches and pushes
// bring what is good, and count that something was not.
func TestBadPages(t *testing.T) {
	x := wsSpec()
	x.LocalBlocks = true
	store := newFakeStore(x)
	store.bad = map[uint64]bool{69: true, 300: true, 1000: true} // 69 is of the working set
	b := mounted(t, store, Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	if st := b.stats("a", ""); st.PrefetchedPages != 1023 || st.FailedPrefetches != 1 {
		t.Errorf("%+v", st.Counters)
	}
	m := c.mapFile(fd, x.Pages)
	bad := []uint64{69, 300, 1000}
	if res := c.try(request{Op: "touch", Map: m, GFNs: bad}); res.Bus != 3 {
		t.Errorf("%d SIGBUS", res.Bus)
	}
	var good []uint64
	for gfn := range x.Pages {
		if !store.bad[gfn] {
			good = append(good, gfn)
		}
	}
	c.do(request{Op: "touch", Map: m, GFNs: good, Spec: &x})
	if res := c.try(request{Op: "touch", Map: m, GFNs: bad}); res.Bus != 3 {
		t.Errorf("afterwards %d SIGBUS", res.Bus)
	}
	// read(2) gets what is before the page, and never the file's end.
	fd = c.open(b.path("a/clones/x/memory"), unix.O_RDONLY)
	res := c.try(request{Op: "pread", FD: fd, Off: 290 * PageSize, Len: 32 * PageSize})
	if res.Err == "" && len(res.Data) > 10*PageSize {
		t.Errorf("read(2) over page 300: %d pages", len(res.Data)/PageSize)
	}
	if res := c.try(request{Op: "pread", FD: fd, Off: 300 * PageSize, Len: PageSize}); res.Errno != unix.EIO {
		t.Errorf("read(2) of page 300: %q", res.Err)
	}
	if res := c.try(request{Op: "pread", FD: fd, Off: 4000 * PageSize, Len: PageSize}); res.Err != "" ||
		x.check(4000, res.Data) != nil {
		t.Errorf("read(2) behind it: %q", res.Err)
	}
	b.SetPolicy(PolicyEager)
	if err := b.Drop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	c.open(b.path("a/memory"), unix.O_RDONLY)
	if st := b.stats("a", ""); st.PrefetchedPages != x.Pages-3 || st.FailedPrefetches != 1 {
		t.Errorf("eager: %+v", st.Counters)
	}
}

// The block of a page is pushed without the pages of it that are bad.
func TestBadNeighbours(t *testing.T) {
	x := spec{Name: "a", Pages: 4096, Seed: 1, LocalBlocks: true}
	store := newFakeStore(x)
	store.bad = map[uint64]bool{5 + 256: true, 5 + 512: true}
	b := mounted(t, store, Options{RecordWindow: time.Nanosecond})
	c := b.client()
	m := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{5}, Spec: &x})
	eventually(t, "13 good neighbours", func() bool { return b.stats("a", "").PushedPages == 13 })
	eventually(t, "it is counted", func() bool { return b.metrics.pushErrors.Load() == 1 })
	if res := c.try(request{Op: "touch", Map: m, GFNs: []uint64{5 + 256, 5 + 512}}); res.Bus != 2 {
		t.Errorf("%d SIGBUS", res.Bus)
	}
}
