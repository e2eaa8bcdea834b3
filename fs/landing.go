package fs

import (
	"sync"
	"sync/atomic"
	"time"
)

// A landing is the playout of one flight: what its pieces are told to, the opens wait by, READs note late
// pages in, and stats.json shows.
type landing struct {
	id string // of the restore
	// early: the opens may return before all is there.
	early bool
	start time.Time
	// awaited are the pages of the working set that have not come.
	awaited *bitmap
	// running: the opens have returned. From then on READs note which pages they had to ask for.
	running atomic.Bool
	late    lateness

	mu   sync.Mutex
	play *playout // guarded by mu, as all below
	head uint64   // pages that were brought before the opens returned
	cost float64  // of a page until then, in nanoseconds; 0: not known
	// whole is the same with what comes before the first page.
	whole float64
	over  bool // nothing more will come
}

// lateness sums the pages that a READ asked for before they were pushed.
type lateness struct {
	pages   atomic.Uint64
	total   atomic.Int64 // nanoseconds that such READs took, as longest
	longest atomic.Int64
}

func newLanding(m *memoryFile, feed Feed, policy Policy, start time.Time, first pace) *landing {
	return &landing{early: policy == PolicyWorkingSet, start: start, awaited: newBitmap(m.pages),
		play: newPlayout(feed.Len(), startMargin, first)}
}

// plan takes the schedule of the feed; true: the opens may return.
func (l *landing) plan(feed Feed, s *schedule, margin float64) bool {
	var gfns []uint64
	for i := range feed.Len() {
		gfns = feed.GFNs(i, gfns[:0])
		l.await(i, gfns)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.play.plan(s, margin)
	return l.early && l.play.safe()
}

func (l *landing) await(i int, gfns []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.play.done[i] || l.over {
		return
	}
	eachRun(gfns, func(first, n uint64) { l.awaited.addRange(first, n) })
}

// brought notes that a piece was pushed; true: the opens may return.
func (l *landing) brought(i int, gfns []uint64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	eachRun(gfns, func(first, n uint64) { l.awaited.removeRange(first, n) })
	l.play.brought(i, len(gfns), now.Sub(l.start))
	if !l.play.landed {
		l.head += uint64(len(gfns))
	}
	return l.early && !l.play.landed && l.play.safe()
}

// hurry says whether the tail is in danger of coming late if it comes half as fast as the head has.
func (l *landing) hurry(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.early || l.play.hurry(now.Sub(l.start), 2*l.cost)
}

// land notes that the opens return.
func (l *landing) land(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.play.land(now.Sub(l.start))
	l.cost, l.whole = l.costNow()
	l.running.Store(true)
}

// end notes that nothing more will come; complete: because all is there. cost is what to expect of the next
// restore, which has to get going, too.
func (l *landing) end(complete bool) (r result, cost float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.awaited.clear()
	if !complete {
		return unknown, 0
	}
	if cost = l.whole; cost == 0 { // the tail steps aside for READs, and says less about the medium
		_, cost = l.costNow()
	}
	return l.play.result(l.late.pages.Load()), cost
}

// costNow is what a page costs, and with what comes before the first; 0 if too few have come to know.
func (l *landing) costNow() (cost, whole float64) {
	if l.play.pace.newest.pages < priorPages {
		return 0, 0
	}
	cost, _ = l.play.pace.cost()
	return cost, l.play.pace.whole()
}

// asked notes a READ; true: some of its pages should have been there.
func (l *landing) asked(first, count uint64) bool {
	if !l.running.Load() {
		return false
	}
	n := l.awaited.removeRange(first, count)
	l.late.pages.Add(uint64(n))
	return n > 0
}

// waited notes how long a READ took that asked for late pages.
func (t *lateness) waited(d time.Duration) {
	t.total.Add(int64(d))
	for {
		longest := t.longest.Load()
		if int64(d) <= longest || t.longest.CompareAndSwap(longest, int64(d)) {
			return
		}
	}
}

// eachRun calls fn for each run of neighbours.
func eachRun(gfns []uint64, fn func(first, n uint64)) {
	for len(gfns) > 0 {
		n := 1
		for n < len(gfns) && gfns[n] == gfns[0]+uint64(n) {
			n++
		}
		fn(gfns[0], uint64(n))
		gfns = gfns[n:]
	}
}
