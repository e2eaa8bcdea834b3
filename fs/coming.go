package fs

import (
	"slices"
	"sync"
	"time"
)

// coming is the pages that pushers are reading and pushing for streams. A READ of one of them waits
// until all of its part are there: else a reader that is as fast as the pushes would read each page
// itself just before it is pushed, and the pusher would wait for every one of these READs.
//
// That cannot be a deadlock, because no pusher waits for a READ that waits. It does not push pages in
// flight; a READ that comes in while its page is being stored does not wait (both look: the pusher at
// inflight after it has noted the page in storing, the READ at storing after it has marked it in
// inflight); and before the pusher waits for the gate it lets all READs go.
//
// Where parts of two pushers have a page in common, the first to end takes the mark of both away. A READ
// that comes then does not wait, which is never wrong.
type coming struct {
	pages *bitmap
	mu    sync.Mutex
	done  chan struct{} // closed when some have come; nil if nobody waits. Guarded by mu.
}

// maxComing bounds the wait: the page may lie where it is read faster than those beside it.
const maxComing = 10 * time.Millisecond

func (c *coming) begin(gfns []uint64) {
	for _, gfn := range gfns {
		c.pages.addRange(gfn, 1)
	}
}

func (c *coming) end(gfns []uint64) {
	for _, gfn := range gfns {
		c.pages.removeRange(gfn, 1)
	}
	c.wake()
}

// letGo ends all waits, although the pages have not come.
func (c *coming) letGo() {
	c.pages.clear()
	c.wake()
}

func (c *coming) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		close(c.done)
		c.done = nil
	}
}

// has says whether a page is among them. It takes no lock.
func (c *coming) has(gfn uint64) bool { return c.pages.has(gfn) }

// wait returns when a page is not among them, or after maxComing.
func (c *coming) wait(gfn uint64) {
	late := time.NewTimer(maxComing)
	defer late.Stop()
	for {
		c.mu.Lock()
		if c.done == nil {
			c.done = make(chan struct{})
		}
		done := c.done
		c.mu.Unlock()
		if !c.pages.has(gfn) {
			return
		}
		select {
		case <-done:
		case <-late.C:
			return
		}
	}
}

// storing is the runs of notifications under way. Several of them may have a page in common. Its lock is
// held for a few comparisons, by pushers, and by READs of pages that are coming.
type storing struct {
	mu   sync.Mutex
	runs []pageRun // guarded by mu
}

type pageRun struct{ first, count uint64 }

func (s *storing) begin(first, count uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = append(s.runs, pageRun{first, count})
}

func (s *storing) end(first, count uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.runs, pageRun{first, count})
	s.runs = slices.Delete(s.runs, i, i+1)
}

func (s *storing) has(gfn uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.runs, func(r pageRun) bool { return gfn-r.first < r.count })
}
