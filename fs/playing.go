package fs

import (
	"math"
	"sync/atomic"
	"time"
)

// bringSet brings the working set. Beside it a goroutine finds out when its pieces are wanted, so that
// the first of them are on their way meanwhile.
func (s *Server) bringSet(f *flight) error {
	f.sess.landing.Store(f.landing)
	f.planning.Go(func() {
		defer s.rescue("planning a restore", nil)
		if f.landing.plan(f.feed, f.watch.schedule(s.scheduleOf(f.h)), s.lesson(f.m.e).Margin) {
			f.land()
		}
	})
	return s.pushFeed(f, f.feed)
}

// landed ends a flight that has brought what it could. The opens return at once, whatever the plan still
// waits for.
func (s *Server) landed(f *flight, complete bool) {
	f.land()
	if f.landing != nil {
		f.planning.Wait()
		s.learn(f, complete)
	}
}

// brought notes that a piece of a working set is there, and lets the opens return when the rest is sure to
// come in time.
func (s *Server) brought(f *flight, i int, gfns []uint64) {
	if f.landing != nil && f.landing.brought(i, gfns, time.Now()) {
		f.land()
	}
}

// scheduleOf says when the pieces of an image's working set are wanted. The store tells, or the record,
// which is read once: unless it cannot be read, which the next restore tries again.
func (s *Server) scheduleOf(h *openImage) *schedule {
	known := <-h.schedule
	defer func() { h.schedule <- known }()
	if known == nil {
		known = scheduleFrom(h.ws)
	}
	if known != nil {
		return known
	}
	record, err := readRecord(s.ctx, s.store, *h.of)
	if err == nil {
		known = newSchedule(h.ws, record)
		return known
	}
	if s.ctx.Err() == nil {
		s.warn("the times of a working set are not known, half of it is brought before the machine runs",
			"checkpoint", h.of.Name, "err", err)
	}
	return newSchedule(h.ws, nil)
}

// lesson is what restores have taught about an image. Who keeps lessons is asked once.
func (s *Server) lesson(e *entry) Lesson {
	e.mu.Lock()
	known := e.lesson
	e.mu.Unlock()
	if known != (Lesson{}) {
		return known
	}
	kept := Lesson{}
	if s.opts.Lessons != nil {
		var err error
		if kept, err = s.opts.Lessons.Load(e.id); err != nil {
			s.log.Debug("what earlier restores taught is not known", "checkpoint", e.name, "err", err)
			kept = Lesson{}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lesson == (Lesson{}) {
		e.lesson = kept.withDefaults()
	}
	return e.lesson
}

// learn takes the lesson of a restore that has ended.
func (s *Server) learn(f *flight, complete bool) {
	r, cost := f.landing.end(complete)
	s.pace.learn(cost)
	s.metrics.playout.add(f.landing.report())
	if r == unknown || f.ctx.Err() != nil {
		return
	}
	e := f.m.e
	s.lesson(e) // so that there is one
	e.mu.Lock()
	old := e.lesson
	e.lesson = old.learn(r)
	learned, gone := e.lesson, e.gone
	e.mu.Unlock()
	if s.opts.Lessons == nil || gone || learned == old {
		return
	}
	if err := s.opts.Lessons.Save(e.id, learned); err != nil {
		s.log.Debug("what a restore taught is not kept", "checkpoint", e.name, "err", err)
	}
}

// A lastPace is what a page took in the last restores of a server, as the first guess for the next one.
type lastPace struct{ bits atomic.Uint64 }

// load is in nanoseconds; 0: not known.
func (p *lastPace) load() float64 { return math.Float64frombits(p.bits.Load()) }

func (p *lastPace) learn(cost float64) {
	if cost <= 0 || math.IsInf(cost, 0) {
		return
	}
	if old := p.load(); old > 0 {
		cost = (old + cost) / 2
	}
	p.bits.Store(math.Float64bits(cost))
}
