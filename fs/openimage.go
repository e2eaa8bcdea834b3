package fs

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// An openImage is an opened image of an entry. The entry's current one stays open while files are open
// and, for a while, after that. READs use it without a reference: they come through open files, and the
// kernel sends the RELEASE of a file after the last of its READs was answered. Pushers, which outlive
// files, count themselves in users.
type openImage struct {
	mem      Image
	revision uint32
	// serial is another one for each image that is opened.
	serial uint64
	// local is mem.Local.
	local bool
	// ws is mem.WorkingSetFeed.
	ws Feed
	// of is the checkpoint as it was listed when the image was opened.
	of *Checkpoint
	// schedule has one element: when the pieces of ws are wanted, or nil until a restore has found that
	// out. Who takes it out puts it back.
	schedule chan *schedule
	// orders are that by number, and, once a READ has asked for them, mem.Orders.
	orders atomic.Pointer[[]Order]
	asked  atomic.Bool // for mem.Orders
	// composed are files that are made of it.
	composed composedFiles
	// set is the pages of ws, once somebody has asked for them.
	set atomic.Pointer[bitmap]
	// users are pushers at work on it. Guarded by the entry's mu.
	users int
}

// image opens the image of a checkpoint if it is not open, or if its working set has been replaced
// since: bytes and node numbers are the same then, but the feed is a new one.
func (s *Server) image(e *entry) (*openImage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return s.imageLocked(e)
}

func (s *Server) imageLocked(e *entry) (*openImage, error) {
	c := e.info.Load()
	cur := e.img.Load()
	if cur != nil && cur.revision == c.Revision {
		return cur, nil
	}
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("open image of %s: %w", e.name, s.ctx.Err())
	}
	mem, err := s.openStored(*c)
	if err != nil {
		return nil, fmt.Errorf("open image of %s: %w", e.name, err)
	}
	if mem.Size() != c.MemoryBytes {
		mem.Close()
		return nil, fmt.Errorf("open image of %s: %d bytes, the checkpoint says %d",
			e.name, mem.Size(), c.MemoryBytes)
	}
	h := &openImage{
		mem: mem, revision: c.Revision, local: mem.Local(), ws: mem.WorkingSetFeed(),
		of: c, schedule: make(chan *schedule, 1), serial: s.images.Add(1),
	}
	h.schedule <- nil
	h.orders.Store(&[]Order{numbers{mem, e.pages()}})
	e.img.Store(h)
	if cur != nil {
		e.replaced = append(e.replaced, cur)
	}
	return h, nil
}

// maxOpening is how many images are opened at a time. To open one takes descriptors and memory that are free
// again when it is open; the others line up.
const maxOpening = 16

// openStored opens an image when it is its turn.
func (s *Server) openStored(c Checkpoint) (Image, error) {
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
	return s.store.OpenImage(s.ctx, c)
}

// hold keeps the entry's image open for a pusher; nil when the file is not open any more: the kernel
// may have forgotten it, and another clone have its number.
func (s *Server) hold(m *memoryFile) *openImage {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	h := m.e.img.Load()
	if h == nil || m.opens == 0 {
		return nil
	}
	s.holdLocked(m, h)
	return h
}

// holdLocked keeps an image open while a goroutine pushes pages of it into m.
func (s *Server) holdLocked(m *memoryFile, h *openImage) {
	h.users++
	s.keepLocked(m)
}

// unhold ends a hold, also that of a restore, and does what had to wait for it.
func (s *Server) unhold(m *memoryFile, h *openImage) {
	e := m.e
	e.mu.Lock()
	h.users--
	s.unkeepLocked(m)
	err := s.settleLocked(e, false)
	if e.quiet != nil {
		close(e.quiet)
		e.quiet = nil
	}
	e.mu.Unlock()
	if err != nil {
		s.complain(e, "close image", err)
	}
}

// settleLocked closes the images that nobody can use any more; if all is set or the checkpoint is gone,
// also the current one. Images in use stay open.
func (s *Server) settleLocked(e *entry, all bool) error {
	if e.opens > 0 {
		return nil
	}
	var errs []error
	kept := e.replaced[:0]
	for _, h := range e.replaced {
		if h.users > 0 {
			kept = append(kept, h)
			continue
		}
		errs = append(errs, s.closeImage(h))
	}
	e.replaced = kept
	if cur := e.img.Load(); cur != nil && cur.users == 0 && (all || e.gone) {
		e.img.Store(nil)
		errs = append(errs, s.closeImage(cur))
	}
	return errors.Join(errs...)
}

// opened counts an open of m and makes sure that its image is there. who is nil for the prober,
// which owns no clone.
func (s *Server) opened(m *memoryFile, who *fuse.Owner) error {
	e := m.e
	if who != nil {
		s.lockWhole(m)
	} else {
		e.mu.Lock()
	}
	defer e.mu.Unlock()
	if _, err := s.imageLocked(e); err != nil {
		return err
	}
	if who != nil {
		if err := m.admitLocked(*who); err != nil {
			return err
		}
	}
	if m.clone != "" && e.clones[m.clone] != m {
		// It had ended, but its node was pinned; it may have missed a drop.
		e.clones[m.clone] = m
		m.sess.Store(m.newSession(e.epoch.Load()))
	}
	if who == nil {
		m.probes++
	}
	m.opens++
	e.opens++
	s.idle.remove(e)
	return nil
}

// released undoes opened. With the last open it ends the restore that still goes on for m, before
// m can be opened again, and leaves the image open for the next open unless too many are kept open.
// With the last one that is not the prober's it ends the holes of a clone.
func (s *Server) released(m *memoryFile, probe bool) {
	e := m.e
	e.mu.Lock()
	m.opens--
	e.opens--
	if probe {
		m.probes--
	}
	left := !probe && m.opens == m.probes && m.holes.Load() != nil && !m.poisoned.Load()
	if left {
		m.abandonLocked()
	}
	if m.opens == m.probes {
		m.sess.Load().watch.Load().spoil(whyClosed)
	}
	if m.opens == 0 {
		m.abandonLocked()
		if m.clone != "" {
			m.sess.Load().settle()
			m.inflight.clear() // all READs of it are answered
			m.coming.letGo()
			m.streams.reset()
		}
	}
	idle := e.opens == 0
	if idle {
		e.epoch.Load().readers.released(time.Now())
	}
	err := s.settleLocked(e, false)
	e.mu.Unlock()
	if left {
		s.endHoles(m)
	}
	if err != nil {
		s.complain(e, "close image", err)
	}
	if idle {
		s.rests(e)
	}
}

// rests is called when nobody has a file of an entry's image open any more.
func (s *Server) rests(e *entry) {
	s.saveAsked(e)
	s.closeIdle(s.idle.add(e))
}

// closeIdle closes the images of entries if nobody has them open.
func (s *Server) closeIdle(entries []*entry) {
	for _, e := range entries {
		e.mu.Lock()
		err := s.settleLocked(e, true)
		e.mu.Unlock()
		if err != nil {
			s.complain(e, "close image", err)
		}
	}
}
