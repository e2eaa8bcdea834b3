package device

// GenIDState is the state of a GenID. A restored machine gets another ID.
type GenIDState struct {
	ID   [genIDBytes]uint8
	Addr uint64 // guest physical
}

// Tag names the section of the state file.
func (*GenID) Tag() string { return "VMGENID" }

// State returns what is saved.
func (g *GenID) State() GenIDState {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.state
	s.Addr = g.addr
	return s
}

// Restore sets it. The new ID comes with Resume.
func (g *GenID) Restore(s GenIDState) error {
	if s.Addr != g.addr {
		return badState("the guest has its generation ID at %#x, this machine at %#x", s.Addr, g.addr)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.stale, g.notify = s, true, true
	return nil
}
