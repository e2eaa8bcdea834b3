package scan

import (
	"time"

	"github.com/thawfs/thaw/wss"
)

// leafPages is the number of pages whose generations are stored together.
const leafPages = 1 << 14

// generations stores in which sweep each page was last found touched: CLOCK without a hand, as each
// sweep visits all pages. It is sparse: 4 bytes for each page, only for parts of memory with touched
// pages.
type generations struct {
	pages  uint64
	leaves []*[leafPages]uint32
	sweeps []generation // [i] is generation i+1
}

// generation is a sweep, except the first: the time in which its pages were touched.
type generation struct{ from, to time.Time }

func newGenerations(pages uint64) *generations {
	leaves := make([]*[leafPages]uint32, (pages+leafPages-1)/leafPages)
	return &generations{pages: pages, leaves: leaves}
}

// add adds a generation. Of two marks of a page the greater one is kept: that of the later sweep or, in
// one sweep, that of the page's own bit.
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

// within returns the number of the oldest generation that overlaps with the time from since on; the
// newest always counts.
func (g *generations) within(since time.Time) int {
	oldest := len(g.sweeps)
	for oldest > 1 && g.sweeps[oldest-2].to.After(since) {
		oldest--
	}
	return oldest
}

// runs lists the pages touched in the generation oldest or later, the most recent generation first. In
// each generation pages with their own bit come first, then others, both ascending. The time of a run
// is its age. full says that there were more runs than a record can have.
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
