package fs

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"
)

// LastRestore is what the newest open of a memory file, which is a request to restore, has led to: counts
// since then of that one file. Stats has the totals.
type LastRestore struct {
	// ID is the name of the restore, which lines of the log have as "restore".
	ID    string    `json:"id"`
	Clone string    `json:"clone,omitempty"` // the clone that was opened; empty: NAME/memory
	At    time.Time `json:"at"`
	// WaitedSeconds is how long the open took; while it takes, how long it has.
	WaitedSeconds   float64 `json:"waited_seconds"`
	PrefetchedPages uint64  `json:"prefetched_pages"` // that were not in the page cache before
	PushedPages     uint64  `json:"pushed_pages"`
	LazyPages       uint64  `json:"lazy_pages"`
	LazyRequests    uint64  `json:"lazy_requests"`
	EvictedPages    uint64  `json:"evicted_pages"`
	// StallSeconds is the time in which at least one READ was outstanding; for NAME/memory READs of its
	// clones are among them.
	StallSeconds float64 `json:"stall_seconds"`
	Errors       uint64  `json:"errors"`
}

// A restored is an open, with what its file had counted before.
type restored struct {
	id      string
	at      time.Time
	before  Counters
	stalled time.Duration
	waited  atomic.Int64 // nanoseconds; 0: it has not returned
}

// restoreNames names restores: no two servers use the same names.
type restoreNames struct {
	server string
	last   atomic.Uint64
}

func newRestoreNames() *restoreNames {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return &restoreNames{server: hex.EncodeToString(b[:])}
}

func (n *restoreNames) next() string { return fmt.Sprintf("%s-%d", n.server, n.last.Add(1)) }

// notes begins the counts of an open, in each session that it meets. e.mu is held.
func (o *opening) notes(sess *session, now time.Time) {
	if o.sess == sess {
		return
	}
	o.sess = sess
	o.last = &restored{id: o.id, at: now, before: sess.load(), stalled: sess.stalled(now)}
	sess.last.Store(o.last)
}

// stalled is how long READs of the file were outstanding; of the image's own file, those of all.
func (s *session) stalled(now time.Time) time.Duration {
	if s.stalls != nil {
		return s.stalls.Stalled(now)
	}
	return s.epoch.stalls.Stalled(now)
}

// lastRestore is the newest restore of a file; nil: there was none since it was cold.
func (m *memoryFile) lastRestore(now time.Time) *LastRestore {
	sess := m.sess.Load()
	r := sess.last.Load()
	if r == nil {
		return nil
	}
	waited := time.Duration(r.waited.Load())
	if waited == 0 {
		waited = now.Sub(r.at)
	}
	c := sess.load()
	return &LastRestore{
		ID: r.id, Clone: m.clone, At: r.at, WaitedSeconds: waited.Seconds(),
		PrefetchedPages: c.PrefetchedPages - r.before.PrefetchedPages,
		PushedPages:     c.PushedPages - r.before.PushedPages,
		LazyPages:       c.LazyPages - r.before.LazyPages,
		LazyRequests:    c.LazyRequests - r.before.LazyRequests,
		EvictedPages:    c.EvictedPages - r.before.EvictedPages,
		// The clock of an image's stalls begins with its first open.
		StallSeconds: max(0, sess.stalled(now)-r.stalled).Seconds(),
		Errors:       c.Errors - r.before.Errors,
	}
}

// newer is the later one of two restores; either may be nil.
func (r *LastRestore) newer(o *LastRestore) *LastRestore {
	if r == nil || o != nil && o.At.After(r.At) {
		return o
	}
	return r
}

// returned notes that an open returns, and tells the log.
func (s *Server) returned(m *memoryFile, o *opening, pid uint32, f *flight) {
	waited := max(time.Since(o.last.at), 1)
	o.last.waited.Store(int64(waited))
	by := "" // what brings it pages
	if f != nil {
		by = f.id
		s.metrics.restores.observe(waited)
	}
	s.log.Info("memory was opened", "restore", o.id, "checkpoint", m.e.name, "clone", m.clone, "pid", pid,
		"brought_by", by, "waited", waited)
}
