package scan

import (
	"time"

	"github.com/thawfs/thaw/wss"
)

// leafPages is the number of pages whose generations lie together.
const leafPages = 1 << 14

// generations knows in which sweep each page was last seen touched: CLOCK without a hand, as each
// sweep goes through all pages. It is sparse, 4 bytes for each page of the parts of memory in which
// something was touched.
type generations struct {
	pages  uint64
	leaves []*[leafPages]uint32
	sweeps []generation // [i] is generation i+1
}

// generation is one sweep but the first: what it found was touched between two points in time.
type generation struct{ from, to time.Time }

func newGenerations(pages uint64) *generations {
	leaves := make([]*[leafPages]uint32, (pages+leafPages-1)/leafPages)
	return &generations{pages: pages, leaves: leaves}
}

// add is a new generation. Of two marks of a page the greater counts: the younger, and of one sweep
// that by a bit of its own.
func (g *generations) add(from, to time.Time, fine, coarse *wss.Bitmap) {
	g.sweeps = append(g.sweeps, generation{from, to})
	n := uint32(len(g.sweeps))
	g.mark(coarse, 2*n)
	g.mark(fine, 2*n+1)
}

func (g *generations) mark(pages *wss.Bitmap, mark uint32) {
	for first, count := range pages.Runs() {
		for page := first; page < first+count; page++ {
			l := g.leaves[page/leafPages]
			if l == nil {
				l = new([leafPages]uint32)
				g.leaves[page/leafPages] = l
			}
			l[page%leafPages] = mark
		}
	}
}

// within is the number of the oldest generation of which a part lies in the time from since on;
// the youngest counts in any case.
func (g *generations) within(since time.Time) int {
	oldest := len(g.sweeps)
	for oldest > 1 && g.sweeps[oldest-2].to.After(since) {
		oldest--
	}
	return oldest
}

// runs lists the pages touched in a generation or later, the most recent first, those of one
// generation ascending, after those with a bit of their own those without. Their time is their age.
// full: there were more runs than a record can have.
func (g *generations) runs(oldest int, now time.Time) (runs []wss.Run, full bool) {
	if oldest < 1 {
		return nil, false
	}
	byMark := make([]*wss.Bitmap, 2*(len(g.sweeps)-oldest+1))
	first := uint32(2 * oldest)
	for i, l := range g.leaves {
		if l == nil {
			continue
		}
		for k, mark := range l {
			if mark < first {
				continue
			}
			b := &byMark[mark-first]
			if *b == nil {
				*b = wss.NewBitmap(g.pages)
			}
			(*b).Set(uint64(i)*leafPages + uint64(k))
		}
	}
	for m := len(byMark) - 1; m >= 0; m-- {
		if byMark[m] == nil {
			continue
		}
		age := max(now.Sub(g.sweeps[oldest-1+m/2].to), 0).Truncate(time.Microsecond)
		for first, count := range byMark[m].Runs() {
			if len(runs) == wss.MaxRuns {
				return runs, true
			}
			runs = append(runs, wss.Run{GFN: first, Count: count, At: age,
				Source: wss.SourceAccess, VCPU: wss.NoVCPU})
		}
	}
	return runs, false
}
