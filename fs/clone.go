package fs

import (
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// memoryOf gives the live half of a memory node, made when it is first needed.
func (s *Server) memoryOf(n *node) *memory {
	if m := n.mem.Load(); m != nil {
		return m
	}
	e := n.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := n.mem.Load(); m != nil {
		return m
	}
	var m *memory
	if n.kind == kindMemory {
		if e.main == nil {
			e.main = newMemory(e, n.id, "")
		}
		m = e.main
	} else {
		if e.clones[n.detail] == nil {
			e.clones[n.detail] = newMemory(e, n.id, n.detail)
		}
		m = e.clones[n.detail]
	}
	n.mem.Store(m)
	return m
}

// forgotten is called when the kernel has evicted the inode of a memory file: nothing of it is in
// the page cache now. A clone's life ends with that, unless it is poisoned: that must not be
// forgotten by looking the other way for a while.
func (s *Server) forgotten(n *node) {
	m := n.mem.Load()
	if m == nil {
		return
	}
	m.abandon()
	sess := m.sess.Load()
	sess.resident.clear()
	sess.restored.Store(0)
	m.streams.reset()
	if m.clone == "" || m.poisoned.Load() {
		return
	}
	e := m.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if m.opens == 0 && e.clones[m.clone] == m {
		e.retired.add(sess.load())
		delete(e.clones, m.clone)
	}
}

// poison makes a clone unreadable after something wrote through a shared mapping of it: what the
// page cache holds is no longer the image. The pages are dropped from another goroutine, since the
// WRITE that brought the news has one of them locked.
func (s *Server) poison(m *memory) {
	if !m.poisoned.Swap(true) {
		s.log.Warn("clone written to; it is unreadable from now on",
			"checkpoint", m.e.name, "clone", m.clone)
	}
	if m.writes.Add(1) > 1 {
		return // the goroutine that is at it will see this one
	}
	s.goes(func() {
		for n := int64(0); !m.writes.CompareAndSwap(n, 0); {
			n = m.writes.Load()
			s.purge(m)
		}
	})
}

// purge drops the page cache of a poisoned clone.
func (s *Server) purge(m *memory) {
	m.gate.Lock()
	defer m.gate.Unlock()
	m.sess.Load().resident.clear()
	if st := s.kernel.InodeNotify(m.node, 0, 0); !st.Ok() && st != fuse.ENOENT {
		s.complain(m.e, "drop a poisoned clone", fmt.Errorf("notify: %v", st))
	}
}
