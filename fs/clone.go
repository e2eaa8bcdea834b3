package fs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errForeign refuses the open of a clone that belongs to another user.
var errForeign = errors.New("the clone belongs to another user")

// admitLocked makes who the owner of a clone that has none, and refuses everybody but its owner, root
// too: a machine of root's would read zeros where the owner discards, and end when the owner writes.
// e.mu is held, so that only one of two users who open it at the same time becomes the owner.
func (m *memoryFile) admitLocked(who fuse.Owner) error {
	if m.clone == "" {
		return nil
	}
	owner := m.owner.Load()
	switch {
	case who.Uid == ^uint32(0): // a user that the server's user namespace does not have
		return errForeign
	case owner == nil:
		m.owner.Store(&who)
	case who.Uid != owner.Uid:
		return errForeign
	}
	return nil
}

// memoryOf returns the memoryFile of a memory node, and makes it when it is first needed.
func (s *Server) memoryOf(n *node) *memoryFile {
	if m := n.mem.Load(); m != nil {
		return m
	}
	e := n.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := n.mem.Load(); m != nil {
		return m
	}
	m := e.memoryLocked(n)
	switch {
	case m != nil:
	case n.kind == kindMemory:
		m = newMemoryFile(e, n.id, "")
		e.main = m
	default:
		m = newMemoryFile(e, n.id, n.detail)
		e.clones[n.detail] = m
	}
	n.mem.Store(m)
	return m
}

// memoryLocked is the memory file of a node's inode number; nil if there is none. e.mu is held.
func (e *entry) memoryLocked(n *node) *memoryFile {
	switch n.kind {
	case kindMemory:
		return e.main
	case kindCloneMem:
		return e.clones[n.detail]
	}
	return nil
}

// forgotten is called when the kernel has evicted the inode of a memory file: nothing of it is in
// the page cache now. A clone ends with that.
func (s *Server) forgotten(n *node) {
	e := n.e
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.memoryLocked(n)
	if m == nil || m.opens > 0 {
		return // nothing is known of it, or the kernel knows it again already
	}
	m.abandonLocked()
	sess := m.sess.Load()
	sess.cold()
	sess.restored.Store(0)
	m.streams.reset()
	s.endLocked(m)
}

// poison makes a clone unreadable after something wrote through a shared mapping of it: what the
// page cache holds is no longer the image. The pages are dropped from another goroutine, since the
// WRITE that caused it has one of them locked.
func (s *Server) poison(n *node) {
	m := s.memoryOf(n)
	if !m.poisoned.Swap(true) {
		s.tree.pin(n.id)
		s.ledger.change(m.key(), func(r *ledgerRow) bool {
			r.Poisoned = true
			return true
		})
		s.log.Warn("clone written to; it is unreadable from now on",
			"checkpoint", m.e.name, "clone", m.clone)
	}
	if m.writes.Add(1) > 1 {
		return // the goroutine that drops the pages will see this WRITE, too
	}
	s.keep(m)
	begun := s.goes("dropping a poisoned clone", func() {
		defer s.unkeep(m)
		for n := int64(0); !m.writes.CompareAndSwap(n, 0); {
			n = m.writes.Load()
			s.purge(m)
		}
	})
	if !begun {
		s.unkeep(m)
	}
}

// purge drops the page cache of a poisoned clone.
func (s *Server) purge(m *memoryFile) {
	m.gate.Lock()
	defer m.gate.Unlock()
	m.sess.Load().cold()
	if st := s.kernel.InodeNotify(m.node, 0, 0); !st.Ok() && st != fuse.ENOENT {
		s.complain(m.e, "drop a poisoned clone", fmt.Errorf("notify: %v", st))
	}
}
