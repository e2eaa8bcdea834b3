package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

// loaded is a machine made from a checkpoint, paused before its first instruction.
type loaded struct {
	*Machine
	dir        string
	opened     time.Time     // when the open of the memory file returned
	prefetched *wss.Bitmap   // pages in the page cache now; nil if the kernel does not tell
	counting   time.Duration // what it took to find that out
	tables     uint64        // page tables of the guest, read before it started
	walking    time.Duration // the time for that
	exact      bool          // the tracker counts touched pages exactly
	notes      []string      // what this host could not do
}

// loadOptions are the choices of a restore.
type loadOptions struct {
	count bool            // find out what was prefetched
	clock state.ClockMode // "": ClockResume
	force bool            // a [*state.HostError] becomes a note
	externals

	tables bool // read the guest's page tables first
	// readAround: the kernel brings up to 128 KiB with a page that is fetched, as it does for any
	// program that maps a file. It is for comparisons with such programs.
	readAround bool
}

// load makes a machine from a checkpoint directory, on disk or on a mount.
//
// The order matters for the time that the user waits. The state is small and comes first, so that a
// machine that cannot be restored costs no prefetch. Opening the memory file then is the request to
// prefetch. What is left afterwards are system calls.
func load(dir string, log *slog.Logger, o loadOptions) (*loaded, error) {
	c, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	s := &c.Machine
	l := &loaded{dir: c.Dir}
	forgive := l.forgiver(log, o.force)
	if err := forgive(state.CheckHost(s.VCPUs)); err != nil {
		return nil, err
	}
	mem, err := openMemory(c, o.readAround)
	if err != nil {
		return nil, err
	}
	l.opened = time.Now()
	if l.Machine, err = newMachine(s.Facts, mem, o.externals, log); err != nil {
		return nil, err
	}
	var why string
	if l.exact, why = mem.Exact(); !l.exact {
		l.note(log, "touched pages are counted with their neighbours: "+why)
	}
	if err := l.Machine.loadState(s, o.clock, forgive); err != nil {
		l.Machine.Close()
		return nil, err
	}
	if o.count {
		// As late as can be: a prefetch may go on after the open returned.
		begin := time.Now()
		if l.prefetched, err = mem.Resident(); err != nil {
			l.note(log, "prefetched pages are not known: "+err.Error())
		}
		l.counting = time.Since(begin)
	}
	if o.tables {
		begin := time.Now()
		if l.tables, err = readTables(mem, s.VCPUs); err != nil {
			l.Machine.Close()
			return nil, err
		}
		l.walking = time.Since(begin)
	}
	return l, nil
}

// openMemory maps the memory of a checkpoint.
func openMemory(c *state.Checkpoint, readAround bool) (*ram.Memory, error) {
	img, err := c.OpenImage()
	if err != nil {
		return nil, err
	}
	mem, err := img.Map()
	if err == nil && readAround {
		if err = mem.ReadAround(); err != nil {
			return nil, errors.Join(err, mem.Close())
		}
	}
	return mem, err
}

func (l *loaded) note(log *slog.Logger, s string) {
	l.notes = append(l.notes, s)
	log.Warn(s)
}

// loadState sets the state of a new machine: vCPUs, then what they share, then the devices. Those
// assert their interrupt lines again when the machine is resumed: KVM saves what the controllers have
// seen of a line, but not that a device holds it.
//
// forgive is asked about every [*state.HostError]; what it makes nil is left as it is on this host.
func (m *Machine) loadState(s *state.Machine, clock state.ClockMode, forgive func(error) error) error {
	first := m.vcpus[0]
	if err := first.Do(func() error { return s.VCPUs[0].PartTSC(first.KVM) }); err != nil {
		return fmt.Errorf("restore vCPU 0: %w", err)
	}
	for i, c := range m.vcpus {
		if err := c.Do(func() error { return s.VCPUs[i].Restore(c.KVM, forgive) }); err != nil {
			return fmt.Errorf("restore vCPU %d: %w", i, err)
		}
	}
	if s.Chips != nil {
		if err := s.Chips.Restore(m.vm, clock); err != nil {
			return err
		}
	}
	if err := m.devices.Restore(s.Devices); err != nil {
		return err
	}
	m.ports.restore(s.Ports)
	return nil
}

// forgiver makes what a restore does about this host's faults: without force they are its end, with
// it they are notes.
func (l *loaded) forgiver(log *slog.Logger, force bool) func(error) error {
	return func(err error) error {
		var host *state.HostError
		if !force || !errors.As(err, &host) {
			return err
		}
		l.note(log, "forced: "+err.Error())
		return nil
	}
}
