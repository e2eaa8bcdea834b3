package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A memory is one memory file, the image's own or a clone's: one inode, one page cache.
type memory struct {
	node  uint64
	e     *entry
	clone string // "" for the image's own
	pages uint64
	size  uint64

	// inflight are the pages of READs that are not answered yet: the kernel has them locked, and a
	// push of one would wait for the answer.
	inflight *bitmap
	// sess is what happened since the image was last cold.
	sess atomic.Pointer[session]
	// poisoned: something wrote through a shared mapping, what reads would get is not the image.
	poisoned atomic.Bool
	// writes were refused since the page cache was last dropped for them.
	writes atomic.Int64

	streams streams

	// gate lets a drop wait until nobody pushes, and then nobody starts. READs never take it:
	// it is held over notifications, which wait for READs.
	gate sync.RWMutex

	// mu guards flight, the newest restore. It is held for moments only.
	mu     sync.Mutex
	flight *flight

	// opens counts open files. Guarded by e.mu.
	opens int
}

// A session is the time from one cold page cache to the next. READs and pushers keep the one they
// began with, so that what they count late does not land in the next.
type session struct {
	counts
	// resident are the pages that should be in the page cache: pushed or read.
	resident *bitmap
	// touched are the pages that were read on demand.
	touched *bitmap
	// brought are the pages that opens waited for: brought again, a page counts once.
	brought *bitmap
	// stalls are the times in which a READ of this file was outstanding; nil for the image's own
	// file, whose READs are in the epoch's log like everyone's.
	stalls *wss.StallLog
	// restored is the policy of the last restore that came to its end, plus one.
	restored atomic.Int64

	mu sync.Mutex
	// waits are the times in which opens waited for a prefetch. Guarded by mu.
	waits []span
}

func newMemory(e *entry, nodeID uint64, clone string) *memory {
	pages := e.pages()
	m := &memory{
		node:     nodeID,
		e:        e,
		clone:    clone,
		pages:    pages,
		size:     pages * PageSize,
		inflight: newBitmap(pages),
	}
	m.sess.Store(m.newSession())
	return m
}

func (m *memory) newSession() *session {
	s := &session{
		resident: newBitmap(m.pages),
		touched:  newBitmap(m.pages),
		brought:  newBitmap(m.pages),
	}
	if m.clone != "" {
		s.stalls = wss.NewStallLog(time.Now())
	}
	return s
}

// A span is a stretch of time.
type span struct{ start, end time.Time }

// maxWaits bounds session.waits.
const maxWaits = 1024

// waited notes that opens waited for a prefetch from start to end.
func (s *session) waited(start, end time.Time) {
	s.prefetchNS.Add(uint64(end.Sub(start)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waits) < maxWaits {
		s.waits = append(s.waits, span{start, end})
	}
}

// wants says whether a page is worth pushing: not there, and not on its way.
func (m *memory) wants(s *session, gfn uint64) bool {
	return gfn < m.pages && !m.inflight.has(gfn) && !s.resident.has(gfn)
}
