package fs

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What an open has led to is counted from that open on, of its file; what was before is in the totals.
func TestLastRestore(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{})
	c := b.client()
	if st := b.stats("a", ""); st.LastRestore != nil {
		t.Errorf("before any open: %+v", st.LastRestore)
	}
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	st := b.stats("a", "")
	first := st.LastRestore
	if first == nil || first.ID == "" || first.Clone != "" || first.PrefetchedPages != st.PrefetchedPages ||
		first.PrefetchedPages == 0 || first.WaitedSeconds <= 0 || st.Playout.RestoreID != first.ID {
		t.Fatalf("the first restore: %+v of %+v", first, st)
	}
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{x.Pages - 1, x.Pages - 40}, Spec: &x})
	st = b.stats("a", "")
	if r := st.LastRestore; r.ID != first.ID || r.LazyPages != st.LazyPages || r.LazyRequests == 0 ||
		r.StallSeconds <= 0 || r.StallSeconds > st.StallSeconds {
		t.Errorf("after some faults: %+v of %+v", r, st)
	}

	c.open(b.path("a/clones/v/memory"), unix.O_RDONLY)
	st = b.stats("a", "")
	clone := st.LastRestore
	if clone.Clone != "v" || clone.ID == first.ID || clone.LazyPages != 0 || st.LazyPages == 0 {
		t.Errorf("the restore of a clone: %+v of %+v", clone, st)
	}
	if r := b.stats("a", "v").LastRestore; r == nil || r.ID != clone.ID {
		t.Errorf("the clone's own: %+v", r)
	}

	c.open(b.path("a/memory"), unix.O_RDONLY)
	st = b.stats("a", "")
	again := st.LastRestore
	if again.Clone != "" || again.ID == first.ID || again.LazyPages != 0 || again.LazyRequests != 0 {
		t.Errorf("the second restore: %+v", again)
	}
	if st.ResidentPages == 0 || st.ResidentPages > st.MemoryPages || st.MemoryPages != 2*x.Pages {
		t.Errorf("%d of %d pages are there", st.ResidentPages, st.MemoryPages)
	}
}
