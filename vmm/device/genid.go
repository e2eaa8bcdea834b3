package device

import (
	"fmt"
	"io"
	"sync"
)

const genIDBytes = 16

// GenID is a VM generation ID, as specified by Microsoft and supported by Linux since 5.18: 128 random
// bits in guest memory. After a restore they change, and the guest is notified and reseeds its random
// number generator, so that two machines from one checkpoint differ.
//
// The ID is at the start of a page that the memory map reserves. The guest learns of it from ACPI,
// which must declare
//
//   - a device with the _CID "VM_Gen_Counter" and an ADDR package of two integers, the low and the
//     high half of the address;
//   - a generic event device (ACPI0013) whose _CRS has the line's GSI as edge-triggered and active
//     high, and whose _EVT notifies the former device with 0x80.
//
// The line is edge-triggered, because no action of the guest would clear a level: it is asserted and
// deasserted at once, before the vCPUs run.
type GenID struct {
	mem    Memory
	addr   uint64
	line   Line
	source io.Reader

	mu     sync.Mutex // guards what follows
	state  GenIDState
	stale  bool // the ID is to be replaced at Resume
	notify bool // and the guest is to be notified
}

// NewGenID makes a device whose page is at a guest physical address. The source of the ID is
// [crypto/rand.Reader], except in tests.
func NewGenID(mem Memory, addr uint64, line Line, source io.Reader) *GenID {
	return &GenID{mem: mem, addr: addr, line: line, source: source, stale: true}
}

// Drain does nothing: the device has no work of its own.
func (g *GenID) Drain() error { return nil }

// Resume gives a new or restored machine its own ID.
func (g *GenID) Resume() (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stale {
		err = g.renew()
	}
	if err == nil && g.notify {
		if err = g.line.Set(true); err == nil {
			err = g.line.Set(false)
		}
	}
	if err != nil {
		return fmt.Errorf("generation ID: %w", err)
	}
	g.notify = false
	return nil
}

func (g *GenID) renew() error {
	var id [genIDBytes]byte
	if _, err := io.ReadFull(g.source, id[:]); err != nil {
		return err
	}
	if _, err := g.mem.WriteAt(id[:], int64(g.addr)); err != nil {
		return err
	}
	g.state.ID, g.stale = id, false
	return nil
}

// GenIDState is the state of a GenID. A restored machine gets another ID.
type GenIDState struct {
	ID   [genIDBytes]uint8
	Addr uint64 // guest physical
}

// Tag returns the tag of the section in the state file.
func (*GenID) Tag() string { return "VMGENID" }

// State returns the state for a checkpoint.
func (g *GenID) State() GenIDState {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.state
	s.Addr = g.addr
	return s
}

// Restore sets the state. The new ID comes with Resume.
func (g *GenID) Restore(s GenIDState) error {
	if s.Addr != g.addr {
		return badState("the guest has its generation ID at %#x, this machine at %#x", s.Addr, g.addr)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.stale, g.notify = s, true, true
	return nil
}
