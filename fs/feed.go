package fs

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
)

// pushFeed starts goroutines that fetch, decode and push the pieces of a feed. They fetch in order, as
// many at once as the medium serves well: from one disk one at a time, so that what lies in sequence is
// read in sequence, whichever goroutine decodes it. Options.Workers of them decode and push at the same
// time. The first failure ends it.
func (s *Server) pushFeed(f *flight, feed Feed) error {
	fetches := feed.Parallel()
	q := &fetchQueue{
		free: make(chan struct{}, fetches), workers: make(chan struct{}, s.opts.Workers),
	}
	// While the CPUs decode, the medium should be busy, too.
	errs := make([]error, s.opts.Workers+fetches)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			p := s.pieces.get()
			defer s.pieces.put(p)
			for more := true; more; {
				more, errs[w] = s.pushNext(f, feed, q, p)
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

// fetchQueue hands out the pieces of a feed in order.
type fetchQueue struct {
	mu   sync.Mutex    // held by the goroutine that fetches next, while it waits for its turn
	next int           // guarded by mu
	free chan struct{} // has an element for each fetch that is under way
	// failed: the rest need not be fetched. The end of the feed does not set it, because other
	// goroutines may still have pieces then.
	failed atomic.Bool

	workers chan struct{} // has an element for each goroutine that decodes or pushes
}

// take waits until the next piece may be fetched; done is to be called when it was.
func (q *fetchQueue) take() (i int, done func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free <- struct{}{}
	i = q.next
	q.next++
	return i, func() { <-q.free }
}

// pushNext brings the next piece of a feed; more is false after the last one and after a failure.
func (s *Server) pushNext(f *flight, feed Feed, q *fetchQueue, p *Piece) (more bool, err error) {
	defer s.rescueErr("a prefetch", &err)
	i, err := s.fetchNext(f, feed, q, p)
	if err == nil && i < 0 {
		return false, nil
	}
	q.workers <- struct{}{}
	defer func() { <-q.workers }()
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
