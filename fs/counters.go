package fs

import (
	"sync/atomic"
	"time"
)

// Counters are what a memory file counted since it was last cold. Pages are of 4096 bytes.
type Counters struct {
	// Opens are opens of memory, those by the residency prober not among them.
	Opens uint64 `json:"opens"`
	// Prefetched pages were brought into the page cache while opens waited for them, each counted
	// once however often it was brought (of a clone: while it is open; so are LazyPages).
	PrefetchedPages uint64 `json:"prefetched_pages"`
	PrefetchedBytes uint64 `json:"prefetched_bytes"`
	// PrefetchSeconds is how long opens waited for prefetches, each prefetch counted once.
	PrefetchSeconds float64 `json:"prefetch_seconds"`
	// Prefetches is how often a prefetch ran; FailedPrefetches of them gave up on an error.
	Prefetches       uint64 `json:"prefetches"`
	FailedPrefetches uint64 `json:"failed_prefetches"`
	// LazyPages are distinct pages that were read on demand, in LazyRequests requests.
	LazyPages    uint64 `json:"lazy_pages"`
	LazyRequests uint64 `json:"lazy_requests"`
	// PushedPages were pushed outside of opens: the tail of a capped prefetch (TailPages
	// of them), neighbours of demanded pages, what lies ahead of a sequential reader.
	PushedPages uint64 `json:"pushed_pages"`
	TailPages   uint64 `json:"tail_pages"`
	// EvictedPages were read again although they had been in the page cache.
	EvictedPages uint64 `json:"evicted_pages"`
	// Errors are READs that were answered with an error.
	Errors uint64 `json:"errors"`
}

// add sums two counts.
func (c *Counters) add(o Counters) {
	c.Opens += o.Opens
	c.PrefetchedPages += o.PrefetchedPages
	c.PrefetchedBytes += o.PrefetchedBytes
	c.PrefetchSeconds += o.PrefetchSeconds
	c.Prefetches += o.Prefetches
	c.FailedPrefetches += o.FailedPrefetches
	c.LazyPages += o.LazyPages
	c.LazyRequests += o.LazyRequests
	c.PushedPages += o.PushedPages
	c.TailPages += o.TailPages
	c.EvictedPages += o.EvictedPages
	c.Errors += o.Errors
}

// counts are Counters that many goroutines add to.
type counts struct {
	opens, prefetched, prefetchNS, prefetches, failed atomic.Uint64
	lazyPages, lazyRequests, pushed, tail, evicted    atomic.Uint64
	errors                                            atomic.Uint64
}

func (c *counts) load() Counters {
	prefetched := c.prefetched.Load()
	return Counters{
		Opens:            c.opens.Load(),
		PrefetchedPages:  prefetched,
		PrefetchedBytes:  prefetched * PageSize,
		PrefetchSeconds:  time.Duration(c.prefetchNS.Load()).Seconds(),
		Prefetches:       c.prefetches.Load(),
		FailedPrefetches: c.failed.Load(),
		LazyPages:        c.lazyPages.Load(),
		LazyRequests:     c.lazyRequests.Load(),
		PushedPages:      c.pushed.Load() + c.tail.Load(),
		TailPages:        c.tail.Load(),
		EvictedPages:     c.evicted.Load(),
		Errors:           c.errors.Load(),
	}
}
