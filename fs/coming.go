package fs

import (
	"sync"
	"time"
)

// coming is the pages that pushers are reading and pushing for streams. A READ of one of them waits
// until all of its part are there: else a reader that is as fast as the pushes would read each page
// itself just before it is pushed, and the pusher would wait for every one of these READs.
//
// That cannot be a deadlock, because the pusher waits for no READ that waits. It does not push pages in
// flight; a READ that comes in while its page is being stored does not wait (both look: the pusher at
// inflight after it has marked the page in storing, the READ at storing after it has marked it in
// inflight); and before the pusher waits for the gate it lets all READs go. Only if two pushers store one
// page at once does the first to finish take the mark of both away: a READ that comes then may wait for
// the second, which waits for it, until maxComing is over.
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

// wait returns when a page is not among them, or after maxComing. It does nothing, and takes no lock,
// if the page is not.
func (c *coming) wait(gfn uint64) {
	if !c.pages.has(gfn) {
		return
	}
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
