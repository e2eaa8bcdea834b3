package fs

// Demand says how many READs the server has answered, and whether somebody waits for it now: a READ is
// outstanding, or a restore brings what its machine waits for. Work that is not urgent waits then.
func (s *Server) Demand() (reads uint64, busy bool) {
	return s.metrics.reads.count(), s.demand.outstanding.Load() > 0 || s.flying.Load() > 0
}
