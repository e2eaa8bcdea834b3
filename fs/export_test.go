package fs

// SetPolicy changes the restore policy for opens from now on.
func (s *Server) SetPolicy(p Policy) { s.policy.Store(int64(p)) }

// InUse is the number of open memory files of a checkpoint, those of clones included.
func (s *Server) InUse(name string) int {
	e := s.tree.entry(name)
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.opens
}
