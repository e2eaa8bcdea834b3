package fs

import (
	"context"
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Drop makes an image cold: the pages of its memory file and of its clones leave the page cache,
// the counters begin at zero, and a new record begins. Private copies of pages that machines have made
// stay; a running machine goes on, and reads again what it needs. Opens in progress bring their pages
// again.
func (s *Server) Drop(ctx context.Context, name string) error {
	return s.drop(ctx, name, false)
}

// StartRecord is Drop, and from the next open on everything is read on demand for
// Options.RecordWindow, whatever the policy, so that Record then has every page. What a machine that
// was already running reads before that open spoils the record.
func (s *Server) StartRecord(ctx context.Context, name string) error {
	return s.drop(ctx, name, true)
}

func (s *Server) drop(ctx context.Context, name string, armed bool) (err error) {
	e := s.tree.entry(name)
	if e == nil {
		return fmt.Errorf("drop %s: %w", name, ErrNotFound)
	}
	// One after the other: two at once could leave files in different epochs.
	select {
	case e.dropping <- struct{}{}:
		defer func() { <-e.dropping }()
	case <-ctx.Done():
		return fmt.Errorf("drop %s: %w", name, ctx.Err())
	}
	defer s.rescueErr("dropping an image", &err)
	ep := s.newEpoch(e, armed)
	files, listed := s.beginEpoch(e, ep)
	if !listed {
		return fmt.Errorf("drop %s: %w", name, ErrNotFound)
	}
	// Some files are not cold, or belong to the epoch before, unless it comes to its end.
	complete := false
	defer func() {
		if !complete {
			ep.spoil(time.Now())
		}
		for _, m := range files {
			s.unkeep(m)
		}
	}()
	for _, m := range files {
		if err = ctx.Err(); err == nil {
			err = s.dropMemory(m, ep)
		}
		if err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	complete = true
	return nil
}

// beginEpoch makes ep the entry's epoch, ends the restores that go on, and lists the memory files that
// are to follow, which are kept. Files that are opened for the first time after it begin in ep. An entry
// that is not listed any more is left alone: its numbers may be another's.
func (s *Server) beginEpoch(e *entry, ep *epoch) (files []*memoryFile, listed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return nil, false
	}
	e.epoch.Store(ep)
	e.retired = Counters{}
	files = e.memoriesLocked()
	for _, m := range files {
		m.abandonLocked()
		s.keepLocked(m)
	}
	return files, true
}

// dropMemory begins a session in ep with a cold page cache. The notification waits for READs that
// are in flight; they do not wait for the gate. A READ that began in the session before has its
// pages locked until it is answered, and they are dropped then.
func (s *Server) dropMemory(m *memoryFile, ep *epoch) error {
	m.gate.Lock()
	defer m.gate.Unlock()
	sess := m.newSession(ep)
	m.sess.Store(sess)
	m.streams.reset()
	// ENOENT: the kernel does not know the file, so it has none of its pages.
	if st := s.kernel.InodeNotify(m.node, 0, 0); !st.Ok() && st != fuse.ENOENT {
		return fmt.Errorf("drop the page cache: %w", error(&pushError{st}))
	}
	// What was read meanwhile may have been dropped, too.
	sess.cold()
	return nil
}

// memories are the memory files that were opened and are not forgotten.
func (e *entry) memories() []*memoryFile {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.memoriesLocked()
}

func (e *entry) memoriesLocked() []*memoryFile {
	var all []*memoryFile
	if e.main != nil {
		all = append(all, e.main)
	}
	for _, m := range e.clones {
		all = append(all, m)
	}
	return all
}
