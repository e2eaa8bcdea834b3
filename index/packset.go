package index

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// packSet is the packs of a store: which there are, which are open, and which must stay.
//
// A pack that is pinned is open, and this process does not remove its blob. A new generation of a
// pack gets an entry of its own: pins of the old one go on reading that.
type packSet struct {
	blobs blob.Store
	dec   *pack.Decoder
	// refresh lists the blobs anew, for a reader whose packs a writer replaces; nil for a writer.
	refresh func(context.Context) error

	mu      sync.Mutex
	m       map[uint64]*packEntry
	retired map[*packEntry]struct{} // replaced, and pinned still; guarded by mu
	closed  bool                    // guarded by mu
}

// packInfo is what is known of a pack without opening it.
type packInfo struct {
	generation uint32
	bytes      int64
	tag        string // see blob.Info; empty for a pack that this process made
	top        uint32 // the highest generation that lies there, sound or not
}

// same says whether two are of the same generation of a pack, as far as an index row can tell.
func (i packInfo) same(j packInfo) bool { return i.generation == j.generation && i.bytes == j.bytes }

// packEntry is one generation of a pack.
type packEntry struct {
	number uint64

	// cur is what readers use; nil while the pack is not open.
	cur atomic.Pointer[openPack]

	mu sync.Mutex // held while the pack is opened or closed; never while it is read

	id *uint64 // identity that it had when it was opened first, or was written; nil: neither; guarded by mu

	info packInfo // guarded by packSet.mu but for its generation, which stays

	// Guarded by packSet.mu.
	pins   int
	doomed bool // to be removed with the last pin
}

// openPack is one generation of a pack, open.
type openPack struct {
	*pack.Reader
	refs atomic.Int64  // the entry's own, and one of each read in progress
	idle chan struct{} // closed when refs comes to 0 and the reader is closed
}

func newOpenPack(r *pack.Reader) *openPack {
	p := &openPack{Reader: r, idle: make(chan struct{})}
	p.refs.Store(1)
	return p
}

// release ends a read that acquire began.
func (p *openPack) release() {
	if p.refs.Add(-1) == 0 {
		_ = p.Reader.Close() // nothing was written: there is nothing to lose
		close(p.idle)
	}
}

// acquire returns the open pack for one read; nil if the pack is not open, which cannot happen while it
// is pinned. It takes no lock.
func (e *packEntry) acquire() *openPack {
	for {
		p := e.cur.Load()
		if p == nil {
			return nil
		}
		// If its count is 0 it was replaced just now: cur has the next one already.
		if n := p.refs.Load(); n > 0 && p.refs.CompareAndSwap(n, n+1) {
			return p
		}
	}
}

func newPackSet(blobs blob.Store, dec *pack.Decoder) *packSet {
	return &packSet{
		blobs: blobs, dec: dec, m: map[uint64]*packEntry{}, retired: map[*packEntry]struct{}{},
	}
}

// add makes a pack known.
func (s *packSet) add(number uint64, info packInfo) {
	s.addEntry(&packEntry{number: number, info: info})
}

// addWritten makes a pack known that this process has written.
func (s *packSet) addWritten(w *pack.Writer, bytes int64) {
	id := w.ID()
	s.addEntry(&packEntry{number: w.Number(), id: &id, info: packInfo{bytes: bytes}})
}

func (s *packSet) addEntry(e *packEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.info.top = max(e.info.top, e.info.generation)
	s.m[e.number] = e
}

// follow makes the packs of a new listing the ones that are known.
func (s *packSet) follow(packs map[uint64]packInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[uint64]*packEntry, len(packs))
	for n, info := range packs {
		if e := s.m[n]; e != nil && e.info == info && info.tag != "" {
			m[n] = e
		} else {
			m[n] = &packEntry{number: n, info: info}
		}
	}
	for n, e := range s.m {
		if m[n] != e && e.pins > 0 {
			s.retired[e] = struct{}{}
		}
	}
	s.m = m
}

// info returns what is known of a pack; false if there is no such pack.
func (s *packSet) info(number uint64) (packInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.m[number]
	if !ok {
		return packInfo{}, false
	}
	return e.info, true
}

// has says whether a pack exists and is not to be removed.
func (s *packSet) has(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.m[number]
	return ok && !e.doomed
}

// numbers returns all packs that are not to be removed, ascending, and how many bytes the others take.
func (s *packSet) numbers() (numbers []uint64, doomed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range sortedKeys(s.m) {
		if e := s.m[n]; e.doomed {
			doomed += e.info.bytes
		} else {
			numbers = append(numbers, n)
		}
	}
	return numbers, doomed
}

// bytes is how much all packs take that are not to be removed.
func (s *packSet) bytes() (sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.m {
		if !e.doomed {
			sum += e.info.bytes
		}
	}
	return sum
}

var errPackMissing = errors.New("it is missing")

// pin opens a pack and keeps it until unpin. Where id is not 0, the pack must have this identity.
func (s *packSet) pin(ctx context.Context, number, id uint64) (*packEntry, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	e, ok := s.m[number]
	if !ok || e.doomed {
		s.mu.Unlock()
		return nil, &CorruptError{
			Pack: pack.Name(number, 0), What: "pack", Err: errPackMissing,
		}
	}
	e.pins++
	s.mu.Unlock()
	if err := s.open(ctx, e, id); err != nil {
		s.unpin(e)
		return nil, err
	}
	return e, nil
}

// use is pin for one goroutine. It returns the reader of the pack, which is open until done is called.
func (s *packSet) use(ctx context.Context, number, id uint64) (r *pack.Reader, done func(), err error) {
	e, err := s.pin(ctx, number, id)
	if err != nil {
		return nil, nil, err
	}
	p := e.acquire()
	if p == nil {
		s.unpin(e)
		return nil, nil, ErrClosed
	}
	return p.Reader, func() { p.release(); s.unpin(e) }, nil
}

func (s *packSet) open(ctx context.Context, e *packEntry, id uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.cur.Load(); p != nil {
		return hasID(p.Reader, id)
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	r, err := s.openBlob(ctx, e.number, e.info.generation)
	if err != nil {
		return err
	}
	if err = s.settleID(e, r); err == nil {
		err = hasID(r, id)
	}
	if err != nil {
		r.Close()
		return err
	}
	e.cur.Store(newOpenPack(r))
	return nil
}

// openBlob opens one generation of a pack.
func (s *packSet) openBlob(ctx context.Context, number uint64, generation uint32) (*pack.Reader, error) {
	name := pack.Name(number, generation)
	r, err := openPackBlob(ctx, s.blobs, s.dec, name, number, generation)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, &CorruptError{Pack: name, What: "pack", Err: err}
	}
	return r, err
}

// openPackBlob opens a pack or root, which must be what its name says.
func openPackBlob(ctx context.Context, blobs blob.Store, dec *pack.Decoder, name string, number uint64,
	generation uint32) (*pack.Reader, error) {
	obj, err := blobs.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := pack.Open(obj, name, dec)
	if err != nil {
		return nil, err
	}
	if r.Number() != number || r.Generation() != generation {
		r.Close()
		return nil, &CorruptError{Pack: name, What: "footer: another pack's"}
	}
	return r, nil
}

// unpin releases a pin. With the last one the pack is closed, and removed if it is doomed.
func (s *packSet) unpin(e *packEntry) {
	s.mu.Lock()
	e.pins--
	last := e.pins == 0
	s.mu.Unlock()
	if last {
		s.closeIdle(e)
	}
}

// closeIdle closes a pack that nobody pins, and removes a doomed one. If that fails, GC removes it later.
func (s *packSet) closeIdle(e *packEntry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.mu.Lock()
	// After close another process may own the store, and collects doomed packs itself.
	idle, doomed := e.pins == 0, e.doomed && !s.closed
	if idle {
		delete(s.retired, e)
	}
	if idle && doomed && s.m[e.number] == e {
		delete(s.m, e.number)
	}
	s.mu.Unlock()
	if !idle {
		return
	}
	if p := e.cur.Swap(nil); p != nil {
		p.release()
	}
	if doomed {
		_ = s.blobs.Remove(context.Background(), pack.Name(e.number, e.info.generation))
	}
}

// doom removes a pack that nothing refers to any more: now, or with its last pin. It returns whether
// the pack is removed already.
func (s *packSet) doom(ctx context.Context, number uint64) (gone bool, err error) {
	s.mu.Lock()
	e, ok := s.m[number]
	if !ok {
		s.mu.Unlock()
		return false, nil
	}
	if e.pins > 0 {
		e.doomed = true
		s.mu.Unlock()
		return false, nil
	}
	delete(s.m, number)
	s.mu.Unlock()
	err = s.blobs.Remove(ctx, pack.Name(number, e.info.generation))
	if err != nil && !errors.Is(err, blob.ErrNotFound) {
		s.mu.Lock()
		s.m[number] = e // still there: the next GC tries again
		s.mu.Unlock()
		return false, err
	}
	return true, nil
}

// replace makes generation info of a pack, which is a blob already, the present one. The old one is
// removed at once or with its last pin. It ignores the end of ctx, so that it is never half done.
func (s *packSet) replace(ctx context.Context, number uint64, info packInfo) error {
	ctx = context.WithoutCancel(ctx)
	r, err := s.openBlob(ctx, number, info.generation)
	if err != nil {
		return errors.Join(err, s.abandon(ctx, number, info.generation))
	}
	id := r.ID()
	if err := r.Close(); err != nil {
		return err
	}
	info.top = info.generation
	s.mu.Lock()
	old := s.m[number]
	s.m[number] = &packEntry{number: number, id: &id, info: info}
	old.doomed = true
	pinned := old.pins > 0
	if pinned {
		s.retired[old] = struct{}{}
	}
	s.mu.Unlock()
	if !pinned {
		s.closeIdle(old)
	}
	return nil
}

// nextGeneration is the number of the generation that may be written of a pack.
func (s *packSet) nextGeneration(number uint64) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[number].info.top + 1
}

// abandon removes a generation of a pack that failed, but may have been written. If that fails, too,
// the number is never used again.
func (s *packSet) abandon(ctx context.Context, number uint64, generation uint32) error {
	err := s.blobs.Remove(context.WithoutCancel(ctx), pack.Name(number, generation))
	if err == nil || errors.Is(err, blob.ErrNotFound) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.m[number]; e != nil {
		e.info.top = max(e.info.top, generation)
	}
	return err
}

// close closes every pack, and waits for the reads in progress. It fails if any pack is still pinned.
func (s *packSet) close() error {
	s.mu.Lock()
	s.closed = true
	pinned := 0
	entries := slices.AppendSeq(slices.Collect(maps.Values(s.m)), maps.Keys(s.retired))
	for _, e := range entries {
		if e.pins > 0 {
			pinned++
		}
	}
	s.mu.Unlock()
	for _, e := range entries {
		e.mu.Lock()
		if p := e.cur.Swap(nil); p != nil {
			p.release()
			<-p.idle
		}
		e.mu.Unlock()
	}
	if pinned > 0 {
		return fmt.Errorf("close store: %d packs are still in use by open images", pinned)
	}
	return nil
}

// pins is a set of pinned packs that are released together.
type pins struct {
	set     *packSet
	entries []*packEntry // as asked for; nil for one that is missing or damaged
	errs    []error      // why an entry is nil
}

// pinReadable pins packs. A damaged pack fails when something is read from it; so does a missing one if
// without is true, and another pack than the one whose identity is in ids. Any other error fails the
// whole call.
func (s *packSet) pinReadable(ctx context.Context, numbers []uint64, ids map[uint64]uint64, without bool) (
	*pins, error,
) {
	p := &pins{set: s}
	for _, n := range numbers {
		e, err := s.pin(ctx, n, ids[n])
		if isManyFiles(err) {
			err = fmt.Errorf("%d packs must be open at once; raise the limit of open files (ulimit -n): %w",
				len(numbers), err)
		}
		if err != nil && (!isDamage(err) || isGone(err) && !without) {
			p.release()
			return nil, err
		}
		p.entries = append(p.entries, e)
		p.errs = append(p.errs, err)
	}
	return p, nil
}

// isManyFiles says whether err is about too many open files.
func isManyFiles(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

func (p *pins) release() {
	for _, e := range p.entries {
		if e != nil {
			p.set.unpin(e)
		}
	}
	p.entries, p.errs = nil, nil
}
