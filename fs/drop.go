package fs

import (
	"context"
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/thawfs/thaw/wss"
)

// Drop makes an image cold: the pages of its memory file and of its clones leave the page cache,
// the counters begin at zero, the record anew. Private copies that machines have made of pages stay
// theirs; a machine that runs goes on, and reads again what it needs.
func (s *Server) Drop(ctx context.Context, name string) error {
	return s.drop(ctx, name, false)
}

// StartRecord is Drop, and from the next open on everything is read on demand for
// Options.RecordWindow, whatever the policy, so that Record then has all of it.
func (s *Server) StartRecord(ctx context.Context, name string) error {
	return s.drop(ctx, name, true)
}

func (s *Server) drop(ctx context.Context, name string, armed bool) error {
	e := s.tree.entry(name)
	if e == nil {
		return fmt.Errorf("drop %s: %w", name, ErrNotFound)
	}
	memories := e.memories()
	// First nobody pushes, then all is dropped: a restore under way would warm it again.
	for _, m := range memories {
		m.abandon()
	}
	e.epoch.Store(s.newEpoch(e, armed))
	e.mu.Lock()
	e.retired = Counters{}
	e.mu.Unlock()
	for _, m := range memories {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
		if err := s.dropMemory(m); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	return nil
}

// dropMemory drops one page cache. The notification waits for READs that are in flight; they do not
// wait for the gate.
func (s *Server) dropMemory(m *memory) error {
	m.gate.Lock()
	defer m.gate.Unlock()
	m.sess.Store(m.newSession())
	m.streams.reset()
	// ENOENT: the kernel does not know the file, so it has none of its pages.
	if st := s.kernel.InodeNotify(m.node, 0, 0); !st.Ok() && st != fuse.ENOENT {
		return fmt.Errorf("drop the page cache: %w", error(&pushError{st}))
	}
	return nil
}

// memories are the memory files that were opened and are not forgotten.
func (e *entry) memories() []*memory {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []*memory
	if e.main != nil {
		all = append(all, e.main)
	}
	for _, m := range e.clones {
		all = append(all, m)
	}
	return all
}

// Record is the working set that the reads since the image was last cold make, up to
// Options.RecordWindow after its first open. ErrNotCold if pages were pushed in that time,
// ErrNothing if nothing was read.
func (s *Server) Record(_ context.Context, name string) (*wss.Set, error) {
	e := s.tree.entry(name)
	if e == nil {
		return nil, fmt.Errorf("record %s: %w", name, ErrNotFound)
	}
	set, err := e.epoch.Load().set(time.Now())
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", name, err)
	}
	return set, nil
}
