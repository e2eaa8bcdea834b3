package fs

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// A flight is one restore of one memory file: what any number of opens at once wait for together.
// It belongs to the server, not to the open that began it.
type flight struct {
	id     string // of the open that began it
	m      *memoryFile
	h      *openImage
	sess   *session
	policy Policy
	start  time.Time
	// feed is the working set that it brings, watch what it shows of it; nil: it is not watched.
	feed  Feed
	watch *watch

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
	// landing decides when the opens return; nil: it is not a restore by working set.
	landing  *landing
	planning sync.WaitGroup // the goroutine that finds out when pieces are wanted
	// capped: opens returned because of a cap.
	capped atomic.Bool
	// lost is the first error of pages that could not be read; the others are brought.
	lost atomic.Pointer[error]
	// whole: it has brought everything.
	whole atomic.Bool
	// over: it has ended, successfully or not.
	over atomic.Bool

	ctx    context.Context
	cancel context.CancelFunc
}

// land lets the waiting opens return.
func (f *flight) land() {
	f.frontOnce.Do(func() {
		f.tail.Store(true)
		now := time.Now()
		if f.landing != nil {
			f.landing.land(now)
		}
		f.watch.begin(now)
		f.sess.waited(f.start, now)
		close(f.front)
	})
}

// abandonLocked ends the restore that goes on for m, if there is one, and what brings the rest: nobody
// joins it any more. e.mu is held.
func (m *memoryFile) abandonLocked() {
	if m.flight != nil {
		m.flight.cancel()
		m.flight = nil
	}
	if m.fill != nil {
		m.fill.stop()
		m.fill = nil
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
	o.notes(sess, now)
	policy := Policy(s.policy.Load())
	recorded := ep.armed && ep.exclusive(now)
	var w *watch
	if !recorded && policy.bySet() {
		w, o.study = s.watchLocked(m, sess, h, o.study), nil
	}
	feed := w.feed(h)
	if policy.bySet() && feed.Len() == 0 {
		policy = PolicyLazy
	}
	if policy == PolicyLazy || recorded {
		ep.start(now)
		w.begin(now)
		s.fillLocked(m, sess)
		return nil
	}
	if f := m.flight; f != nil && f.sess == sess && f.h == h && !f.over.Load() {
		return f
	}
	m.abandonLocked()
	ep.spoil(now)
	ep.start(now)
	f := &flight{id: o.id, m: m, h: h, sess: sess, policy: policy, start: now, front: make(chan struct{}),
		feed: feed, watch: w}
	if policy.bySet() {
		first := pace{prior: s.pace.load(), atOnce: s.fetchers(feed)}
		f.landing = newLanding(m, feed, policy, now, first)
		f.landing.id = o.id
	}
	f.ctx, f.cancel = context.WithCancel(s.ctx)
	if !s.goes("a prefetch", func() { s.fly(f) }) {
		f.cancel()
		return nil
	}
	w.of(f)
	s.holdLocked(m, h)
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
		f.capped.Store(true)
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
	defer s.fillAfter(f)
	s.flying.Add(1)
	defer s.flying.Add(-1)
	m.settled()
	complete := f.sess.restored.Load() == int64(f.policy.whole())+1
	if f.sess.cached() > 0 {
		if !s.stillResident(f) {
			// Some of it was evicted, and which pages is not known: bring everything again.
			f.sess.cold()
		} else if complete {
			return
		}
	}
	f.sess.prefetches.Add(1)
	s.noteRestoring(m, true)
	err := s.bring(f)
	if s.ctx.Err() == nil { // else the next server goes on
		s.noteRestoring(m, false)
	}
	switch {
	case err == nil:
		f.whole.Store(true)
		f.sess.restored.Store(int64(f.policy.whole()) + 1)
	case f.ctx.Err() != nil || errors.Is(err, errStale):
		f.cut.Store(true)
	default:
		// The open does not fail: missing pages are read on demand, from another place.
		f.sess.failed.Add(1)
		s.complain(m.e, "prefetch", err, "restore", f.id)
	}
	s.log.Info("a restore has ended", "restore", f.id, "checkpoint", m.e.name, "clone", m.clone,
		"bytes", f.bytes.Load(), "whole", f.whole.Load(), "took", time.Since(f.start))
	s.landed(f, err == nil)
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
	return s.bringSet(f)
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
		f.capped.Store(f.capped.Load() || !f.tail.Load())
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
			"checkpoint", f.m.e.name, "err", err)
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
