package fs

import (
	"fmt"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Stats is what stats.json shows, since the mount or since the image was last cold.
type Stats struct {
	Name string `json:"name"`
	// Clone is empty for the image: its numbers are those of its own memory file and of all clones.
	Clone string `json:"clone,omitempty"`
	// Policy is the mount's restore policy.
	Policy string `json:"policy"`
	// Open is the number of files open now.
	Open int `json:"open"`
	Counters
	// ResidentPages were pushed or read, and should be in the page cache, out of MemoryPages: of an image,
	// those of its memory file and of all clones that are known.
	ResidentPages uint64 `json:"resident_pages"`
	MemoryPages   uint64 `json:"memory_pages"`
	// StallSeconds is the time in which at least one READ was outstanding.
	StallSeconds float64 `json:"stall_seconds"`
	// Poisoned: a clone that was written to and reads EIO.
	Poisoned bool `json:"poisoned"`
	// Recording: reads are traced, and until the window is over nothing is pushed.
	Recording bool `json:"recording"`
	// LastRestore is what the newest open has led to; nil: there was none. Of an image: of all its files.
	LastRestore *LastRestore `json:"last_restore,omitempty"`
	// Playout is how the newest restore by working set was planned, and how it went; nil: there was
	// none. Of an image: the newest over its files, with the late pages of the newest of each.
	Playout *Playout `json:"playout,omitempty"`
	// Fill is how much of the rest was brought in the background; nil: nothing is filled.
	Fill *Fill `json:"fill,omitempty"`
	// Origin is time 0 of what follows: the first open since the image was cold.
	Origin time.Time `json:"origin"`
	// Prefetches are the times in which opens waited for a prefetch.
	PrefetchIntervals []Wait `json:"prefetch_intervals"`
	// Stalls are the times in which READs were outstanding, see wss.StallSnapshot.
	Stalls wss.StallSnapshot `json:"stalls"`
}

// A Wait is a time in which opens waited, in seconds since Stats.Origin.
type Wait struct {
	Start float64 `json:"start_seconds"`
	End   float64 `json:"end_seconds"`
}

// Stats is what stats.json shows: of an image, or of one of its clones.
func (s *Server) Stats(name, clone string) (Stats, error) {
	e := s.tree.entry(name)
	if e == nil {
		return Stats{}, fmt.Errorf("statistics of %s: %w", name, ErrNotFound)
	}
	return s.stats(e, clone), nil
}

func (s *Server) stats(e *entry, clone string) Stats {
	ep := e.epoch.Load()
	st := Stats{
		Name:              e.name,
		Clone:             clone,
		Policy:            Policy(s.policy.Load()).String(),
		Recording:         ep.exclusive(time.Now()),
		PrefetchIntervals: []Wait{},
	}
	var of []*memoryFile
	e.mu.Lock()
	if clone == "" {
		st.Counters = e.retired
		st.Open = e.opens
		if e.main != nil {
			of = append(of, e.main)
		}
		for _, m := range e.clones {
			of = append(of, m)
		}
	} else if m := e.clones[clone]; m != nil {
		st.Open = m.opens
		of = append(of, m)
	}
	e.mu.Unlock()

	st.Stalls = ep.stalls.Snapshot()
	if clone != "" {
		st.Stalls = wss.StallSnapshot{Origin: st.Stalls.Origin, Elapsed: st.Stalls.Elapsed}
	}
	st.Origin = st.Stalls.Origin
	var newest time.Time
	now := time.Now()
	for _, m := range of {
		sess := m.sess.Load()
		if l := sess.landing.Load(); l != nil {
			st.Playout = st.Playout.with(l.report(), l.start.After(newest))
			newest = later(newest, l.start)
		}
		st.ResidentPages += sess.cached()
		st.MemoryPages += m.pages
		st.LastRestore = st.LastRestore.newer(m.lastRestore(now))
		st.Fill = st.Fill.with(sess.fill.report())
		st.Counters.add(sess.load())
		st.PrefetchIntervals = append(st.PrefetchIntervals, sess.waitsSince(st.Origin)...)
		if clone != "" {
			st.Poisoned = m.poisoned.Load()
			st.Stalls = sess.stalls.Snapshot()
		}
	}
	st.StallSeconds = st.Stalls.Stalled.Seconds()
	return st
}

// waitsSince lists the waits by the clock that starts at origin.
func (s *session) waitsSince(origin time.Time) []Wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := make([]Wait, len(s.waits))
	for i, w := range s.waits {
		waits[i] = Wait{w.start.Sub(origin).Seconds(), w.end.Sub(origin).Seconds()}
	}
	return waits
}
