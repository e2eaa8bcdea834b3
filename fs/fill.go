package fs

import (
	"context"
	"sync/atomic"
	"time"
)

// A fill brings the rest of an image into one memory file while nothing is asked for, at a bounded rate, so
// that the machine on it needs its store no more after a while. It lasts until the file is closed, the image
// is made cold, or another restore begins.
type fill struct {
	srv    *Server
	m      *memoryFile
	h      *openImage
	sess   *session
	ctx    context.Context
	cancel context.CancelFunc
	over   atomic.Bool // it has ended

	piece Piece
	gfns  []uint64
	reads uint64 // that the server had answered when it looked last
}

const (
	// fillQuiet is how long nothing must have been asked for before a fill goes on.
	fillQuiet = 20 * time.Millisecond
	// maxFillWait bounds the wait for a quiet moment, so that a fill makes slow progress beside
	// machines that ask for a page now and then. While a READ is outstanding it waits on.
	maxFillWait = time.Second
	// fillStep is how many pages are pushed between two looks for READs.
	fillStep = 32
)

// fillAfter begins to fill behind a restore that has brought what it was to bring.
func (s *Server) fillAfter(f *flight) {
	f.m.e.mu.Lock()
	defer f.m.e.mu.Unlock()
	if f.m.flight == f && f.ctx.Err() == nil {
		s.fillLocked(f.m, f.sess)
	}
}

// fillLocked begins to fill m, if it is open and the mount does that. e.mu is held.
func (s *Server) fillLocked(m *memoryFile, sess *session) {
	if s.opts.Fill <= 0 || m.opens == 0 || m.sess.Load() != sess {
		return
	}
	if m.fill != nil {
		if !m.fill.over.Load() {
			return
		}
		m.fill.stop() // what was evicted since comes again
		m.fill = nil
	}
	if !s.opts.FillLarge && uint64(s.filling.Load())+m.size > s.ram/2 {
		return
	}
	fl := &fill{srv: s, m: m, h: m.e.img.Load(), sess: sess}
	fl.ctx, fl.cancel = context.WithCancel(s.ctx)
	begun := s.goes("a fill", func() {
		defer s.unhold(m, fl.h)
		defer fl.over.Store(true)
		sess.fill.begun.Store(true)
		s.fillAll(fl)
	})
	if !begun {
		fl.cancel()
		return
	}
	s.holdLocked(m, fl.h)
	m.fill = fl
	s.filling.Add(int64(m.size))
}

// stop ends a fill: the memory that it took counts no more.
func (fl *fill) stop() {
	fl.cancel()
	fl.srv.filling.Add(-int64(fl.m.size))
}

// fillAll brings the pages that are not zero in the order in which they are stored, and then the others.
func (s *Server) fillAll(fl *fill) {
	feed := fl.h.mem.EagerFeed()
	lost := false
	for i := range feed.Len() {
		fl.gfns = feed.GFNs(i, fl.gfns[:0])
		if !fl.wanted() {
			continue
		}
		if !s.fillTurn(fl) {
			return
		}
		err := feed.Fetch(fl.ctx, i, &fl.piece)
		if err == nil && s.fillTurn(fl) {
			err = feed.Decode(&fl.piece)
		}
		if fl.ctx.Err() != nil {
			return
		}
		if err != nil {
			// It is an error when somebody asks for these pages, and complained of then.
			lost = true
			s.log.Debug("fill", "checkpoint", fl.m.e.name, "err", err)
			if lostPages(err) == nil {
				continue
			}
		}
		if !s.fillPiece(fl, &fl.piece) {
			return
		}
	}
	if s.fillZeros(fl) && !lost && !fl.sess.fill.done.Swap(true) {
		s.metrics.fills.Add(1)
		if s.opts.Filled != nil {
			s.opts.Filled(fl.m.e.name, fl.m.clone, fl.sess.fill.bytes.Load())
		}
	}
}

// fillZeros brings the zero pages, but not those of an image that the host cannot hold.
func (s *Server) fillZeros(fl *fill) bool {
	if fl.m.size > s.ram/2 {
		return true
	}
	more := true
	fl.h.mem.ZeroRuns(func(first, count uint64) bool {
		for count > 0 && more {
			n := min(count, maxPush)
			p := s.zeros.piece(first, n)
			if fl.gfns = append(fl.gfns[:0], p.GFNs...); fl.wanted() {
				more = s.fillTurn(fl) && s.fillPiece(fl, p)
			}
			first, count = first+n, count-n
		}
		return more
	})
	return more
}

// wanted says whether one of the pages fl.gfns is missing.
func (fl *fill) wanted() bool {
	for _, gfn := range fl.gfns {
		if fl.m.wants(fl.sess, gfn) {
			return true
		}
	}
	return false
}

// fillPiece pushes a piece, a few pages at a time, and then waits as long as the rate asks for; false: the
// fill is over.
func (s *Server) fillPiece(fl *fill, p *Piece) bool {
	var pushed uint64
	for from := 0; from < len(p.GFNs); from += fillStep {
		to := min(from+fillStep, len(p.GFNs))
		if !s.fillTurn(fl) {
			return false
		}
		step := &Piece{GFNs: p.GFNs[from:to], Pages: p.Pages[from*PageSize : to*PageSize]}
		if err := s.push(fl.m, fl.sess, step, func(_, n uint64) { pushed += n }); err != nil {
			return false // the page cache was dropped, or the kernel does not know the file
		}
	}
	fl.sess.fill.bytes.Add(pushed * PageSize)
	s.metrics.fillBytes.Add(pushed * PageSize)
	pause := time.Duration(float64(pushed) * PageSize / float64(s.opts.Fill) * float64(time.Second))
	return sleep(fl.ctx, pause)
}

// fillTurn waits for a moment at which a fill may go on: no READ is outstanding or was a moment ago, no
// restore of any machine brings what its machine waits for, and nothing is recorded. false: it is over.
func (s *Server) fillTurn(fl *fill) bool {
	var waited time.Duration
	for fl.ctx.Err() == nil {
		now := time.Now()
		reads := s.metrics.reads.count()
		busy := s.demand.outstanding.Load() > 0 || s.flying.Load() > 0 || fl.sess.epoch.tracing(now) ||
			fl.sess.watch.Load().on()
		if !busy && (reads == fl.reads || waited >= maxFillWait) {
			fl.reads = reads
			return true
		}
		fl.reads = reads
		waited += fillQuiet
		sleep(fl.ctx, fillQuiet)
	}
	return false
}

// sleep waits; false: ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// filled is what fills have brought in one session.
type filled struct {
	begun, done atomic.Bool
	bytes       atomic.Uint64
}

// Fill is how much of the rest of an image was brought while nothing was asked for.
type Fill struct {
	Bytes uint64 `json:"bytes"`
	// Done: all of the image is in the page cache of each file that was filled, but for the zero pages
	// of an image that is larger than half of the host's memory.
	Done bool `json:"done"`
}

func (f *filled) report() *Fill {
	if !f.begun.Load() {
		return nil
	}
	return &Fill{Bytes: f.bytes.Load(), Done: f.done.Load()}
}

// with adds what was filled of another file of the image.
func (f *Fill) with(o *Fill) *Fill {
	if f == nil || o == nil {
		if f == nil {
			return o
		}
		return f
	}
	return &Fill{Bytes: f.Bytes + o.Bytes, Done: f.Done && o.Done}
}
