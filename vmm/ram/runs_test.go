package ram

import (
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/wss"
)

// Runs are joined when they are too many; no page is lost by that.
func TestRunsOf(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 100 {
		b := bitmapOf(randomRuns(r, 500), 500)
		limit := 1 + r.IntN(60)
		runs := RunsOf(b, limit)
		if len(runs) > limit {
			t.Fatalf("%d runs, the limit is %d", len(runs), limit)
		}
		if n := b.AndNot(bitmapOf(runs, 500)).Count(); n != 0 {
			t.Fatalf("%d pages are lost", n)
		}
		if all := RunsOf(b, 500); !bitmapOf(all, 500).Equal(b) {
			t.Fatal("pages that did not change")
		}
	}
	if n := len(RunsOf(wss.NewBitmap(10), 1)); n != 0 {
		t.Errorf("%d runs of nothing", n)
	}
}

// randomRuns returns ascending runs, apart from each other, within so many pages.
func randomRuns(r *rand.Rand, pages uint64) (runs []PageRun) {
	for at := r.Uint64N(4); at < pages; {
		n := min(1+r.Uint64N(5), pages-at)
		runs = append(runs, PageRun{at, n})
		at += n + 1 + r.Uint64N(8)
	}
	return runs
}
