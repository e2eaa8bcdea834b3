package fs

// An inode number outlives what it stands for: a clone that is opened again after the kernel has forgotten
// it has the number of the one before, and so has a checkpoint that was removed and is there again. Pushes
// and drops go to the kernel by number. So a goroutine that pushes or drops by a number keeps what the number
// stands for: a lookup that leads to it meanwhile finds the same memory file, with its gate, its session and
// its holes.

// keepLocked notes that a goroutine begins to push pages into m, or to drop them. It is called while the
// kernel knows m, or the entry is listed. e.mu is held.
func (s *Server) keepLocked(m *memoryFile) {
	m.busy++
	m.e.busy++
	if m.e.gone { // its nodes go when the kernel forgets them
		s.tree.pin(m.node)
	}
}

// unkeepLocked ends that, and what had to wait for it. e.mu is held.
func (s *Server) unkeepLocked(m *memoryFile) {
	m.busy--
	m.e.busy--
	s.endLocked(m)
	s.unpinLocked(m.e)
}

func (s *Server) keep(m *memoryFile) {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	s.keepLocked(m)
}

func (s *Server) unkeep(m *memoryFile) {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	s.unkeepLocked(m)
}

// endLocked ends the life of a clone that the kernel does not know and nobody is at work on. One that is
// poisoned must stay so also if the kernel forgets the inode for a while. e.mu is held.
func (s *Server) endLocked(m *memoryFile) {
	if m.clone == "" || m.opens > 0 || m.busy > 0 || m.poisoned.Load() || m.e.clones[m.clone] != m ||
		s.tree.looked(m.node) {
		return
	}
	m.e.retired.add(m.sess.Load().load())
	delete(m.e.clones, m.clone)
}

// unpinLocked gives up the nodes of a checkpoint that is not listed any more, when nobody is at work on its
// files. e.mu is held.
func (s *Server) unpinLocked(e *entry) {
	if e.gone && e.busy == 0 {
		s.tree.unpin(e)
	}
}
