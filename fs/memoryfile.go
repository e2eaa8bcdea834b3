package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/thawfs/thaw/wss"
)

// A memoryFile is the memory file of an image or of a clone: one inode, one page cache.
type memoryFile struct {
	node  uint64
	e     *entry
	clone string // "" for the image's own
	pages uint64
	size  uint64

	// inflight are the pages of READs that are not answered yet: the kernel has them locked, and a
	// push of one would wait for the answer. One READ at a time has a page locked. It takes it out just
	// before its answer goes: the next READ of the page may come in before anything can be done after it.
	inflight *bitmap
	// sess is what happened since the image was last cold.
	sess atomic.Pointer[session]
	// owner is the user who may open a clone; nil until the first open. Set under e.mu, and never changed.
	owner atomic.Pointer[fuse.Owner]
	// holes are the pages that the machine on a clone discarded; nil while there are none. Pages are
	// added with gate held. All of them go at once when the page cache was dropped, with no lock: see
	// endHoles.
	holes atomic.Pointer[holes]
	// poisoned: something wrote through a shared mapping, so reads would not return the image.
	poisoned atomic.Bool
	// writes counts refused WRITEs since the page cache was last dropped because of them.
	writes atomic.Int64

	streams streams
	// jobs are those of the pushers that wait for it.
	jobs jobList
	// coming are pages that will be pushed at once, storing those of notifications under way.
	coming  coming
	storing storing

	// gate lets a drop or a discard wait until nobody pushes, and keeps pushes from starting. READs never
	// take it: it is held over notifications, which wait for READs.
	gate sync.RWMutex

	// flight is the newest restore that nobody has ended, and fill what brings the rest; opens
	// counts open files, probes those among them that the prober has, busy the goroutines that push
	// pages into it or drop them: see keepLocked. Guarded by e.mu.
	flight *flight
	fill   *fill
	opens  int
	probes int
	busy   int
}

// A session is the time from one cold page cache to the next. READs and pushers keep the one they
// began with, so that what they count late is not counted in the next.
type session struct {
	counts
	// epoch is what the session is a part of.
	epoch *epoch
	// resident are the pages that should be in the page cache: pushed or read.
	resident *bitmap
	// touched are the pages that were read on demand.
	touched *bitmap
	// refused are the pages whose reading ahead was refused, and that were not asked for since.
	refused *bitmap
	// brought are the pages that opens waited for: brought again, a page counts once.
	brought *bitmap
	// kept is how many pages of a closed clone were resident when its sets were freed.
	kept atomic.Uint64
	// stalls are the times in which a READ of this file was outstanding; nil for the image's own
	// file, whose READs are in the epoch's log like everyone's.
	stalls *wss.StallLog
	// restored is the policy of the last restore that came to its end, plus one: what it brought is
	// all there, whenever its opens returned.
	restored atomic.Int64
	// landing is that of the newest restore by working set; nil: there was none.
	landing atomic.Pointer[landing]
	// watch is what its restore shows of the working set; nil: it is not watched.
	watch atomic.Pointer[watch]
	// last is the newest open; nil: there was none.
	last atomic.Pointer[restored]
	// fill counts what was brought when nothing was asked for.
	fill filled

	mu sync.Mutex
	// waits are the times in which opens waited for a prefetch. Guarded by mu.
	waits []span
}

func newMemoryFile(e *entry, nodeID uint64, clone string) *memoryFile {
	pages := e.pages()
	m := &memoryFile{
		node:     nodeID,
		e:        e,
		clone:    clone,
		pages:    pages,
		size:     pages * PageSize,
		inflight: newBitmap(pages),
		coming:   coming{pages: newBitmap(pages)},
	}
	m.sess.Store(m.newSession(e.epoch.Load()))
	return m
}

// key names the file in the ledger.
func (m *memoryFile) key() ledgerKey { return ledgerKey{m.e.name, m.e.id, m.clone} }

func (m *memoryFile) newSession(ep *epoch) *session {
	s := &session{
		epoch:    ep,
		resident: newBitmap(m.pages),
		touched:  newBitmap(m.pages),
		refused:  newBitmap(m.pages),
		brought:  newBitmap(m.pages),
	}
	if m.clone != "" {
		s.stalls = wss.NewStallLog(time.Now())
	}
	return s
}

// cached is how many pages should be in the page cache.
func (s *session) cached() uint64 { return s.resident.len() + s.kept.Load() }

// back is how many pages right before one are in the page cache, as far as a stream looks.
func (s *session) back(gfn uint64) (n uint64) {
	for n < min(gfn, maxBack) && s.resident.has(gfn-n-1) {
		n++
	}
	return n
}

// cold notes that nothing is known to be in the page cache.
func (s *session) cold() {
	s.resident.clear()
	s.kept.Store(0)
	s.fill.done.Store(false)
}

// settle frees the sets of a clone that was closed, so that thousands of closed clones cost almost
// nothing. The number of pages in the page cache is kept, which is all that a second open needs. A page
// that is read after that counts as touched once more.
func (s *session) settle() {
	s.kept.Store(s.cached())
	s.resident.clear()
	s.touched.clear()
	s.refused.clear()
	s.brought.clear()
	if l := s.landing.Load(); l != nil {
		l.awaited.clear()
	}
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

// wants says whether a page is worth pushing: not there, not on its way, not discarded, and not held out.
func (m *memoryFile) wants(s *session, gfn uint64) bool {
	return gfn < m.pages && !m.inflight.has(gfn) && !s.resident.has(gfn) && !m.hole(gfn, 1) &&
		!s.watch.Load().leavesOut(gfn)
}

// hole says whether one of count pages was discarded.
func (m *memoryFile) hole(first, count uint64) bool {
	h := m.holes.Load()
	return h != nil && h.any(first, count)
}
