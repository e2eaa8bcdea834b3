package fs

import (
	"math/rand/v2"

	"testing"
)

// What is asked for a few pages at a time is kept, as the runs of a plain set; copies are not, and nothing is
// when somebody reads all.
func TestAsked(t *testing.T) {
	const pages = 200_000
	r := rand.New(rand.NewPCG(3, 4))
	a := newAsked(pages)
	want := map[uint64]bool{}
	for range 3000 {
		first, count := r.Uint64N(pages), 1+r.Uint64N(bigRead-1)
		a.read(first, count)
		for gfn := first; gfn < min(first+count, pages); gfn++ {
			want[gfn] = true
		}
		a.read(r.Uint64N(pages), bigRead)
	}
	got := map[uint64]bool{}
	last := ^uint64(0)
	for _, run := range a.news() {
		if run.Count == 0 || last != ^uint64(0) && run.First <= last {
			t.Fatalf("run %+v after page %d", run, last)
		}
		for gfn := run.First; gfn < run.First+run.Count; gfn++ {
			got[gfn] = true
		}
		last = run.First + run.Count
	}
	if len(got) != len(want) {
		t.Errorf("%d pages, want %d", len(got), len(want))
	}
	for gfn := range want {
		if !got[gfn] {
			t.Fatalf("page %d is not there", gfn)
		}
	}
	if n := a.news(); n != nil {
		t.Errorf("nothing is new: %d runs", len(n))
	}
	a.read(pages-1, 1)
	for gfn := uint64(0); gfn < pages; gfn += 4 {
		a.read(gfn, 4)
	}
	if n := a.news(); n != nil || a.pages.len() != 0 {
		t.Errorf("all were read, and %d runs are kept", len(n))
	}
}
