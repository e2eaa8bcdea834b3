package cache

import "sync/atomic"

// counters count what a cache does.
type counters struct {
	hits, hitBytes    atomic.Int64
	misses, missBytes atomic.Int64
	Fetched, Written  atomic.Int64
	Dropped, Evicted  atomic.Int64
	Damaged, Errors   atomic.Int64
	full              atomic.Bool // limits leave no room: nothing is inserted
}

func (c *counters) hit(n int) {
	c.hits.Add(1)
	c.hitBytes.Add(int64(n))
}

func (c *counters) miss(n, fetched int) {
	c.misses.Add(1)
	c.missBytes.Add(int64(n))
	c.Fetched.Add(int64(fetched))
}

// Stats is what a Cache did since it was opened, in this process.
type Stats struct {
	Hits, HitBytes    int64 // reads, and bytes of them, that were cached
	Misses, MissBytes int64 // that were not
	Fetched           int64 // bytes that were read from stores
	Written           int64 // bytes that were put into the cache
	Dropped           int64 // that were not, because the disk is slow or full
	Evicted           int64 // bytes that had to go
	Damaged           int64 // reads that found other bytes than were written
	Errors            int64 // of the disk
	Full              bool  // limits leave no room
}

// Stats returns the counters.
func (c *Cache) Stats() Stats {
	s := &c.stats
	return Stats{Hits: s.hits.Load(), HitBytes: s.hitBytes.Load(), Misses: s.misses.Load(),
		MissBytes: s.missBytes.Load(), Fetched: s.Fetched.Load(), Written: s.Written.Load(),
		Dropped: s.Dropped.Load(), Evicted: s.Evicted.Load(), Damaged: s.Damaged.Load(),
		Errors: s.Errors.Load(), Full: s.full.Load()}
}
