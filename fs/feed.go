package fs

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// pushFeed starts goroutines that fetch, decode and push the pieces of a feed. They fetch in order, as
// many at once as the medium serves well: from one disk one at a time, so that what lies in sequence is
// read in sequence, whichever goroutine decodes it. Options.Workers of them decode and push at the same
// time. The first failure ends it.
func (s *Server) pushFeed(f *flight, feed Feed) error {
	fetches := feed.Parallel()
	q := &fetchQueue{
		free: make(chan struct{}, fetches), workers: make(chan struct{}, s.opts.Workers),
		alone: make(chan struct{}, 1), turn: make(chan struct{}, 1), turns: s.turns,
	}
	errs := make([]error, s.fetchers(feed))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for more := true; more; {
				more, errs[w] = s.pushNext(f, feed, q)
			}
			if errs[w] != nil {
				q.failed.Store(true)
			}
		})
	}
	wg.Wait()
	if lost := f.lost.Load(); lost != nil {
		errs = append(errs, *lost)
	}
	return cmp.Or(errs...)
}

// fetchers is how many pieces of a feed are under way at once. While the CPUs decode, the medium should be
// busy, too.
func (s *Server) fetchers(feed Feed) int { return s.opts.Workers + feed.Parallel() }

// fetchQueue hands out the pieces of a feed in order.
type fetchQueue struct {
	turn chan struct{} // has an element for the goroutine that fetches next, while it waits
	next int           // changed only by the goroutine whose turn it is
	free chan struct{} // has an element for each fetch that is under way
	// failed: the rest need not be fetched. The end of the feed does not set it, because other
	// goroutines may still have pieces then.
	failed atomic.Bool

	workers chan struct{} // has an element for each goroutine that decodes or pushes
	alone   chan struct{} // has an element for the one that does so alone
	turns   chan struct{} // Server.turns
}

// work waits until a goroutine may decode and push a piece; done is to be called when it has. Behind the
// opens' return one goroutine at a time does that, as long as all comes in time so: the CPUs are for the
// machine that begins to run. One that is held up, by a page that is being read, holds up the others only
// for a moment.
//
// All restores together take turns: as many pieces are decoded at a time as there are CPUs, for the READs of
// machines that run need one, too. Whoever has brought a piece lines up again behind all others.
func (q *fetchQueue) work(f *flight) (done func()) {
	q.workers <- struct{}{}
	free := func() { <-q.turns; <-q.workers }
	if f.landing != nil && f.tail.Load() && !f.landing.hurry(time.Now()) {
		late := time.NewTimer(maxYield)
		defer late.Stop()
		select {
		case q.alone <- struct{}{}:
			free = func() { <-q.turns; <-q.alone; <-q.workers }
		case <-late.C:
		}
	}
	q.turns <- struct{}{}
	return free
}

// take waits until the next piece may be fetched; done is to be called when it was.
func (q *fetchQueue) take() (i int, done func()) {
	q.turn <- struct{}{}
	defer func() { <-q.turn }()
	q.free <- struct{}{}
	i = q.next
	q.next++
	return i, func() { <-q.free }
}

// pushNext brings the next piece of a feed; more is false after the last one and after a failure.
func (s *Server) pushNext(f *flight, feed Feed, q *fetchQueue) (more bool, err error) {
	p := s.pieces.get()
	defer s.pieces.put(p)
	defer s.rescueErr("a prefetch", &err)
	i, err := s.fetchNext(f, feed, q, p)
	if err == nil && i < 0 {
		return false, nil
	}
	defer q.work(f)()
	if err == nil {
		err = feed.Decode(p)
	}
	if err != nil {
		err = fmt.Errorf("piece %d of %d: %w", i, feed.Len(), err)
		if lostPages(err) == nil {
			return false, err
		}
		lost := err
		f.lost.CompareAndSwap(nil, &lost) // the other pages are good
	}
	if err = s.pushPiece(f, p); err == nil {
		s.brought(f, i, p.GFNs)
	}
	s.capped(f) // at once: the next piece may take long
	return err == nil, err
}

// fetchNext reads the next piece of a feed; i is negative after the last one.
func (s *Server) fetchNext(f *flight, feed Feed, q *fetchQueue, p *Piece) (i int, err error) {
	i, done := q.take()
	defer done()
	if q.failed.Load() || i >= feed.Len() {
		return -1, nil
	}
	if err := s.turn(f); err != nil {
		return i, err
	}
	return i, feed.Fetch(f.ctx, i, p)
}
