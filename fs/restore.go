package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// A flight is one restore of one memory file: what any number of opens at once wait for together.
// It belongs to the server, not to the open that began it.
type flight struct {
	m      *memoryFile
	h      *openImage
	sess   *session
	policy Policy
	start  time.Time

	// front is closed when opens may return: all is there, or a cap was reached, or it failed.
	front     chan struct{}
	frontOnce sync.Once
	// tail says that opens have returned and the guest runs: what is pushed now yields to it.
	tail atomic.Bool
	// bytes were pushed so far.
	bytes atomic.Int64
	// cut: it was ended early, because the image was made cold or everybody closed it.
	// Set before front is closed.
	cut atomic.Bool
	// lost is the first error of pages that could not be read; the others are brought.
	lost atomic.Pointer[error]
	// over: it has ended, successfully or not.
	over atomic.Bool

	ctx    context.Context
	cancel context.CancelFunc
}

// land lets the waiting opens return.
func (f *flight) land() {
	f.frontOnce.Do(func() {
		f.tail.Store(true)
		f.sess.waited(f.start, time.Now())
		close(f.front)
	})
}

// abandonLocked ends the restore that goes on for m, if there is one: nobody joins it any more.
// e.mu is held.
func (m *memoryFile) abandonLocked() {
	if m.flight != nil {
		m.flight.cancel()
		m.flight = nil
	}
}

// restore begins what opening m asks for, or joins it. nil: there is nothing to wait for. Its
// decisions are for one session: a drop ends the session, and the flight with it. It brings the newest
// working set: opens that wait for an older one wait for this one instead.
func (s *Server) restore(m *memoryFile, o *opening) *flight {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	now := time.Now()
	h := m.e.img.Load() // there is one while a file is open
	sess := m.sess.Load()
	ep := sess.epoch
	o.meets(ep)
	policy := Policy(s.policy.Load())
	if policy == PolicyWorkingSet && h.ws.Len() == 0 {
		policy = PolicyLazy
	}
	if policy == PolicyLazy || ep.armed && ep.exclusive(now) {
		ep.start(now)
		return nil
	}
	if f := m.flight; f != nil && f.sess == sess && f.h == h && !f.over.Load() {
		return f
	}
	m.abandonLocked()
	ep.spoil(now)
	ep.start(now)
	f := &flight{m: m, h: h, sess: sess, policy: policy, start: now, front: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(s.ctx)
	if !s.goes("a prefetch", func() { s.fly(f) }) {
		f.cancel()
		return nil
	}
	m.holdLocked(h)
	m.flight = f
	return f
}

// wait blocks an open until its restore has landed, at most for the cap on time.
func (s *Server) wait(f *flight) {
	var late <-chan time.Time
	if s.opts.CapTime > 0 {
		t := time.NewTimer(s.opts.CapTime - time.Since(f.start))
		defer t.Stop()
		late = t.C
	}
	select {
	case <-f.front:
	case <-late:
		f.land()
	case <-s.ctx.Done():
	}
}

// fly brings what the policy names into the page cache.
func (s *Server) fly(f *flight) {
	defer f.cancel()
	defer f.over.Store(true)
	defer f.land()
	m := f.m
	defer s.unhold(m, f.h)
	m.settled()
	complete := f.sess.restored.Load() == int64(f.policy)+1
	if f.sess.cached() > 0 {
		if !s.stillResident(f) {
			// Some of it was evicted, and which pages is not known: bring everything again.
			f.sess.cold()
		} else if complete {
			return
		}
	}
	f.sess.prefetches.Add(1)
	err := s.bring(f)
	switch {
	case err == nil:
		f.sess.restored.Store(int64(f.policy) + 1)
	case f.ctx.Err() != nil || errors.Is(err, errStale):
		f.cut.Store(true)
	default:
		// The open does not fail: missing pages are read on demand, from another place.
		f.sess.failed.Add(1)
		s.complain(m.e, "prefetch", err)
	}
}

// settled waits for pushes that have begun. Pushes of an earlier restore may have gone into an inode
// that the kernel has evicted since. When they have ended, what they noted as resident can be checked.
func (m *memoryFile) settled() {
	m.gate.Lock()
	defer m.gate.Unlock()
}

// bring runs the feeds of a policy.
func (s *Server) bring(f *flight) (err error) {
	defer s.rescueErr("a prefetch", &err)
	if f.policy == PolicyEager {
		err := s.pushFeed(f, f.h.mem.EagerFeed())
		if err != nil && lostPages(err) == nil {
			return err
		}
		return errors.Join(err, s.pushZeros(f))
	}
	return s.pushFeed(f, f.h.ws)
}

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
	err = s.pushPiece(f, p)
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

// turn is called before each piece: the tail waits in it while READs are outstanding.
func (s *Server) turn(f *flight) error {
	s.capped(f)
	if f.tail.Load() {
		s.demand.yield(f.ctx)
	}
	return f.ctx.Err()
}

// capped ends the wait of the opens when a cap is reached.
func (s *Server) capped(f *flight) {
	if s.opts.CapBytes > 0 && f.bytes.Load() >= s.opts.CapBytes ||
		s.opts.CapTime > 0 && time.Since(f.start) >= s.opts.CapTime {
		f.land()
	}
}

// stillResident asks the kernel whether everything that was brought is still in the page cache. Without
// an answer it returns false.
func (s *Server) stillResident(f *flight) (still bool) {
	defer s.rescue("asking the prober", nil)
	if s.opts.Prober == nil {
		return false
	}
	want := f.sess.cached()
	got, err := s.opts.Prober.Cached(f.ctx, s.path(f.m))
	if err != nil {
		s.warn("residency is not known, everything is brought again",
			"checkpoint", f.m.e.name, "error", err)
		return false
	}
	return got >= want
}

// path is the path of a memory file on this mount.
func (s *Server) path(m *memoryFile) string {
	if m.clone == "" {
		return filepath.Join(s.mnt, m.e.name, fileMemory)
	}
	return filepath.Join(s.mnt, m.e.name, dirClones, m.clone, fileMemory)
}
