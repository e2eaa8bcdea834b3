package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

// loaded is a machine made from a checkpoint, paused before its first instruction.
type loaded struct {
	*Machine
	dir        string
	opened     time.Time     // when the open of the memory file returned
	prefetched *wss.Bitmap   // pages in the page cache before the first instruction; nil if not known
	counting   time.Duration // the time to find that out
	tables     uint64        // pages of the guest's page tables that were read
	walking    time.Duration // the time to read them
	exact      bool          // the tracker counts touched pages exactly
	notes      []string      // what this host could not do

	log   *slog.Logger
	force bool // a [*state.HostError] becomes a note

	// Pages within the window, counted once (report.go).
	counted        bool
	window         time.Duration
	touched, dirty *wss.Bitmap
}

// load makes a machine from a checkpoint directory, on disk or on a mount.
//
// The order keeps the user's wait short. The state is small and is read first. The open of the memory
// file then starts the prefetch; what needs no memory is done in parallel: the host is checked, and the
// machine is made. After the open only some system calls remain.
func load(dir string, cfg Config) (*loaded, error) {
	c, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	s := &c.Machine
	l := &loaded{dir: c.Dir, log: cfg.Log, force: cfg.Force}
	opening := openMemory(c, cfg.ReadAround)
	if err := l.forgive(state.CheckHost(s.VCPUs)); err != nil {
		return nil, opening.abandon(err, cfg.Log)
	}
	l.Machine, err = newMachine(s.Facts, opening.memory, cfg)
	if err != nil {
		return nil, opening.abandon(err, cfg.Log)
	}
	l.opened = opening.ended
	mem := l.mem
	var why string
	if l.exact, why = mem.Exact(); !l.exact {
		l.note("touched pages are counted with their neighbours: " + why)
	}
	if err := l.Machine.loadState(s, cfg.Clock, l.forgive); err != nil {
		return nil, errors.Join(err, l.Machine.Close())
	}
	if cfg.Count {
		// As late as possible: a prefetch may continue after the open has returned.
		begin := time.Now()
		if l.prefetched, err = mem.Resident(); err != nil {
			l.note("prefetched pages are not known: " + err.Error())
		}
		l.counting = time.Since(begin)
	}
	if !cfg.NoTables {
		begin := time.Now()
		if l.tables, err = readTables(mem, s.VCPUs); err != nil {
			return nil, errors.Join(err, l.Machine.Close())
		}
		l.walking = time.Since(begin)
	}
	return l, nil
}

// opening opens the memory of a checkpoint on a goroutine. It takes as long as the prefetch.
type opening struct {
	done  chan struct{} // closed when the open has ended
	ended time.Time
	mem   *ram.Memory // nil: the open failed, or memory has returned it already
	err   error
}

func openMemory(c *state.Checkpoint, readAround bool) *opening {
	o := &opening{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.mem, o.err = mapImage(c, readAround)
		o.ended = time.Now()
	}()
	return o
}

func mapImage(c *state.Checkpoint, readAround bool) (*ram.Memory, error) {
	img, err := c.OpenImage()
	if err != nil {
		return nil, err
	}
	mem, err := img.Map()
	if err != nil {
		return nil, err
	}
	if readAround {
		if err := mem.ReadAround(); err != nil {
			return nil, errors.Join(err, mem.Close())
		}
	}
	return mem, nil
}

// memory waits for the open and passes the memory to the caller, who owns it.
func (o *opening) memory() (mem *ram.Memory, err error) {
	<-o.done
	mem, o.mem = o.mem, nil
	return mem, o.err
}

// abandon ends a restore because of err, which it returns: it waits for the open, and closes memory that
// nobody took. An open cannot be cancelled, even by the end of the process, so the user is told why at once.
func (o *opening) abandon(err error, log *slog.Logger) error {
	select {
	case <-o.done:
	default:
		log.Error("the restore fails as soon as the memory file is open, which nothing can end early",
			"error", err)
		<-o.done
	}
	if o.mem == nil {
		return err // passed on already, or the open failed, which memory reports
	}
	return errors.Join(err, o.mem.Close())
}

func (l *loaded) note(s string) {
	l.notes = append(l.notes, s)
	l.log.Warn(s)
}

// loadState sets the state of a new machine: vCPUs, then interrupt controllers and clocks, then
// devices. The devices assert their interrupt lines again when the machine is resumed, because KVM's
// state does not contain the levels of its input lines.
//
// forgive is called with every [*state.HostError]. If it returns nil, that part keeps this host's value
// and the restore continues.
func (m *Machine) loadState(s *state.Machine, clock state.ClockMode, forgive func(error) error) error {
	first := m.vcpus[0]
	if err := first.Do(func() error { return s.VCPUs[0].PartTSC(first.KVM) }); err != nil {
		return fmt.Errorf("restore vCPU 0: %w", err)
	}
	err := m.eachVCPU("restore", func(i int, k *kvm.VCPU) error { return s.VCPUs[i].Restore(k, forgive) })
	if err != nil {
		return err
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

// forgive handles what this host lacks: with force it becomes a note, without it the restore fails.
func (l *loaded) forgive(err error) error {
	var host *state.HostError
	if !l.force || !errors.As(err, &host) {
		return err
	}
	l.note("forced: " + err.Error())
	return nil
}
