package fs

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/learn"
)

// Learned keeps what restores have taught about working sets beyond the life of a server, by the ID of the
// checkpoint. One that is lost costs what was learned and is not in the set yet. Methods are called from many
// goroutines.
type Learned interface {
	// LoadLearned returns nil if there is none.
	LoadLearned(id string) (*learn.Record, error)
	SaveLearned(id string, text []byte) error
}

// learned is what is known of an entry.
type learned struct {
	mu     sync.Mutex
	record *learn.Record // nil: not looked for yet. Guarded by mu, also what is in it.
	saving sync.Mutex    // held over the writing of the record, so that the newest is written last
}

// A study is what one restore is to bring, and to leave out, so that something is learned. It is prepared
// before the restore begins, because what was learned, and the times of a set, may have to be read.
type study struct {
	h      *openImage
	base   string // names the set that the image has
	plan   learn.Plan
	set    *bitmap // what is to be brought, with what is held out
	out    *bitmap // what is not to be brought
	sample []uint64
	checks []uint64
	feed   *candidateFeed // nil: the set is that of the image
	// evicted: the kernel has none of the pages that were there before.
	evicted bool
}

// study prepares a restore that will be watched; nil if it will not be: nothing is learned, enough restores
// are watched already, or the file is not cold, so that its machine finds pages that it does not ask for.
func (s *Server) study(m *memoryFile) *study {
	h := m.e.img.Load()
	if s.opts.Learned == nil || h == nil || !Policy(s.policy.Load()).bySet() || m.pages > learn.MaxImagePages ||
		s.watching.Load() >= maxWatched {
		return nil
	}
	untouched := m.sess.Load().untouched()
	if !untouched && !s.evicted(m) {
		return nil
	}
	set := h.setPages(m.pages)
	st := &study{h: h, out: newBitmap(m.pages), evicted: !untouched}
	l := &m.e.learned
	l.mu.Lock()
	defer l.mu.Unlock()
	s.loadLearned(m.e)
	st.base = l.record.Meet(set.spans(), time.Now())
	st.plan = l.record.Begin()
	st.set = set
	if st.plan.Candidate != 0 {
		st.set = newBitmap(m.pages)
		for _, r := range set.runs() {
			st.set.addRange(r.First, r.Count)
		}
		for _, gfn := range st.plan.Drop {
			st.set.removeRange(gfn, 1)
			st.out.addRange(gfn, 1)
		}
		for _, p := range st.plan.Add {
			st.set.addRange(p.GFN, 1)
		}
	}
	st.sample, st.checks = l.record.Hold(st.set.spans(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	for _, held := range [...][]uint64{st.sample, st.checks} {
		for _, gfn := range held {
			st.out.addRange(gfn, 1)
		}
	}
	return st
}

// evicted asks the kernel whether it has evicted every page of a file that nobody else has open.
func (s *Server) evicted(m *memoryFile) bool {
	if s.opts.Prober == nil || !m.alone() {
		return false
	}
	got, err := s.opts.Prober.Cached(s.ctx, s.path(m))
	return err == nil && got == 0
}

// alone says whether one machine has the file open, and nothing is brought into it.
func (m *memoryFile) alone() bool {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	return m.aloneLocked()
}

func (m *memoryFile) aloneLocked() bool {
	return m.opens-m.probes == 1 && m.flight == nil && m.sess.Load().watch.Load() == nil
}

// prepare makes the feed of a candidate. It may read the record of the set.
func (s *Server) prepare(st *study) *study {
	if st != nil && st.plan.Candidate != 0 {
		st.feed = newCandidateFeed(st.h, st.plan.Add, s.scheduleOf(st.h))
	}
	return st
}

// loadLearned makes sure that there is a record. l.mu is held, also over the reading of the file: only opens
// that teach wait for it.
func (s *Server) loadLearned(e *entry) {
	l := &e.learned
	if l.record != nil {
		return
	}
	record, err := s.opts.Learned.LoadLearned(e.id)
	if err != nil {
		s.log.Debug("what earlier restores taught is not known", "checkpoint", e.name, "err", err)
	}
	if record == nil || record.ImagePages != e.pages() {
		record = learn.New(e.pages())
	}
	l.record = record
}

// untouched says that no page can be in the page cache, and no restore has been watched.
func (s *session) untouched() bool {
	return s.cached() == 0 && s.touched.len() == 0 && s.watch.Load() == nil && s.prefetches.Load() == 0
}

// watchLocked begins to watch a restore of m that has been prepared; nil: it is not watched. e.mu is held.
func (s *Server) watchLocked(m *memoryFile, sess *session, h *openImage, st *study) *watch {
	if st == nil || st.h != h || m.flight != nil {
		return nil
	}
	if st.evicted && m.aloneLocked() {
		sess.cold()
	} else if !sess.untouched() {
		return nil
	}
	w := &watch{study: st, m: m, sess: sess, quiet: s.opts.LearnQuiet, base: time.Now(),
		set: st.set, out: st.out, sample: st.sample, checks: st.checks, candidate: st.feed}
	w.trace = wss.NewRecorder(wss.RecorderOptions{
		ImagePages: m.pages, Source: wss.SourceRead, Way: "demand faults of a restore"})
	if s.watching.Add(1) > maxWatched { // others were quicker
		s.watching.Add(-1)
		return nil
	}
	if !s.goes("watching a restore", func() { s.watchOver(w) }) {
		s.watching.Add(-1)
		return nil
	}
	sess.watch.Store(w)
	return w
}

// watchOver waits for the end of a watch, and learns from it.
func (s *Server) watchOver(w *watch) {
	defer s.watching.Add(-1)
	look := time.NewTicker(watchLook)
	defer look.Stop()
	why, ended := "", false
	for !ended {
		select {
		case <-s.ctx.Done():
			why, ended = whyEnded, true
		case now := <-look.C:
			why, ended = w.ended(now)
		}
	}
	w.over.Store(true)
	s.taught(w.m.e, w.shown(why, time.Now()))
	w.sess.watch.CompareAndSwap(w, nil)
}

// taught takes what a restore has shown.
func (s *Server) taught(e *entry, x learn.Restore) {
	l := &e.learned
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	line := l.record.Take(x)
	proved := l.record.Proved()
	text, err := l.record.Text()
	l.mu.Unlock()
	s.log.Debug("a restore was watched", "checkpoint", e.name, "line", line)
	e.mu.Lock()
	gone := e.gone
	e.mu.Unlock()
	if gone {
		return
	}
	if err == nil {
		err = s.opts.Learned.SaveLearned(e.id, text)
	}
	if err != nil {
		s.log.Debug("what a restore taught is not kept", "checkpoint", e.name, "err", err)
		return
	}
	if proved && s.opts.Proved != nil && s.ctx.Err() == nil {
		s.opts.Proved(*e.info.Load())
	}
}

// setPages are the pages of the image's working set.
func (h *openImage) setPages(pages uint64) *bitmap {
	if b := h.set.Load(); b != nil {
		return b
	}
	b := newBitmap(pages)
	var gfns []uint64
	for i := range h.ws.Len() {
		gfns = h.ws.GFNs(i, gfns[:0])
		eachRun(gfns, func(first, n uint64) { b.addRange(first, n) })
	}
	h.set.CompareAndSwap(nil, b)
	return h.set.Load()
}

// spans are the pages that are in, as package learn has them.
func (b *bitmap) spans() []learn.Span {
	runs := b.runs()
	all := make([]learn.Span, len(runs))
	for i, r := range runs {
		all[i] = learn.Span(r)
	}
	return all
}
