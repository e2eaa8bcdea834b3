package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// DefaultWindow is how long after a restore pages are counted if nothing is said.
const DefaultWindow = 10 * time.Second

// Config is what [Run] and [Restore] are told.
type Config struct {
	Guest       guest.Spec      // Run: the program, if there is no kernel
	Kernel      string          // Run: path of a Linux kernel, bzImage or vmlinux
	Initrd      string          // Run: path of its initial RAM disk; "": none
	Cmdline     string          // Run: its command line; "": DefaultCmdline
	MemoryBytes uint64          // Run: RAM
	CPUs        int             // Run: vCPUs; 0: as many as the program is for, 1 for a kernel
	Disks       []state.Disk    // of a kernel. Restore: in place of those at the checkpoint; nil: those
	Console     io.Writer       // what a kernel prints; nil: nowhere. It is closed by its owner
	Input       io.ReadCloser   // what is typed; nil: nothing. Closed at the end
	API         string          // path of a unix socket to drive the machine by; "": none
	Paused      bool            // do not start until the API says resume
	For         time.Duration   // stop so long after the first instruction; 0: run until it ends
	Window      time.Duration   // Restore: count pages so long after the first instruction
	Requested   time.Time       // Restore: when the user asked for it; zero: now
	NoCount     bool            // Restore: do not find out what was prefetched; saves the time for it
	ReadAround  bool            // Restore: leave it to the kernel what comes with a page (see load)
	NoTables    bool            // Restore: do not read the guest's page tables first (guesttables.go)
	Clock       state.ClockMode // Restore: what the guest's clock does about the time since
	Force       bool            // Restore: also on a host that lacks what the machine was told of
	Log         *slog.Logger
	// Started, if not nil, is called when the machine is set up and the API answers.
	Started func()
}

func (c *Config) defaults() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Requested.IsZero() {
		c.Requested = time.Now()
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.For < 0 || c.Window < 0 {
		return fmt.Errorf("a time below zero: for %s, window %s", c.For, c.Window)
	}
	if c.For > 0 {
		c.Window = min(c.Window, c.For)
	}
	return nil
}

// Run starts a guest program in a new machine and returns when it ends: finished, stopped by the
// API, after cfg.For, or by the context. The report is there also with an error, if the machine
// ran.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	m, err := newFrom(cfg)
	if err != nil {
		return nil, err
	}
	return runToEnd(ctx, cfg, m, nil)
}

// Restore makes a machine from a checkpoint directory, lets it go on, and returns when it ends, as
// Run does. Lost pages are a [*MemoryLostError], bytes that the guest finds wrong a
// [*WrongByteError].
func Restore(ctx context.Context, dir string, cfg Config) (*Report, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	l, err := load(dir, cfg.Log, loadOptions{count: !cfg.NoCount, clock: cfg.Clock,
		force: cfg.Force, tables: !cfg.NoTables, readAround: cfg.ReadAround,
		externals: externals{console: cfg.Console, disks: cfg.Disks}})
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", dir, err)
	}
	return runToEnd(ctx, cfg, l.Machine, l)
}

// runToEnd runs a machine to its end and closes it.
func runToEnd(ctx context.Context, cfg Config, m *Machine, l *Loaded) (rep *Report, err error) {
	defer func() {
		if !errors.Is(err, ram.ErrStuck) { // else it cannot be closed, and ends with the process
			err = errors.Join(err, m.Close())
		}
	}()
	w := m.watch()
	defer w.stop()
	stalls := m.sampleStalls()
	defer func() {
		if list := stalls.stop(); rep != nil {
			rep.Stalls = list
		}
	}()
	if cfg.API != "" {
		s, err := api.Serve(cfg.API, apiMachine{m, w, stalls}, cfg.Log)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
	}
	p := m.feedConsole(cfg.Input)
	defer func() { err = errors.Join(err, p.stop()) }()
	if !cfg.Paused {
		if err := m.Start(); err != nil {
			return nil, err
		}
	}
	if cfg.Started != nil {
		cfg.Started()
	}
	c := &counter{loaded: l, log: cfg.Log}
	end, err := m.await(ctx, cfg, c)
	return m.report(cfg, c, end), err
}

// Ends of a run, as the report names them.
const (
	EndFinished    = "finished"    // the guest program did all its units
	EndPowerOff    = "power-off"   // the kernel switched the machine off
	EndReset       = "reset"       // the kernel reset it
	EndStopped     = "stopped"     // by the API
	EndTime        = "time"        // Config.For is over
	EndInterrupted = "interrupted" // the context ended
	EndFailed      = "failed"      // see the error
)

// await returns when the machine has ended, having seen to that, and counts pages at the right
// time.
func (m *Machine) await(ctx context.Context, cfg Config, c *counter) (end string, err error) {
	begun, interrupt := m.begun, ctx.Done()
	var window, limit <-chan time.Time
	for {
		select {
		case <-begun:
			begun = nil
			t := time.NewTimer(cfg.Window)
			defer t.Stop()
			window = t.C
			if cfg.For > 0 {
				t := time.NewTimer(cfg.For)
				defer t.Stop()
				limit = t.C
			}
		case <-window:
			window = nil
			c.count(m)
		case <-limit:
			limit, end = nil, EndTime
			m.Stop()
		case <-interrupt:
			interrupt, end = nil, EndInterrupted
			m.Stop()
		case <-m.ended:
			stuck := m.quiesce(stuckTime)
			c.count(m)
			err := m.Wait(context.Background())
			switch {
			case stuck != nil:
				return EndFailed, errors.Join(err, stuck)
			case err == nil:
				return EndFinished, nil
			case errors.Is(err, device.ErrPowerOff):
				return EndPowerOff, nil
			case errors.Is(err, device.ErrReset):
				return EndReset, nil
			case !errors.Is(err, ErrStopped):
				return EndFailed, err
			case end == EndInterrupted:
				return end, context.Cause(ctx)
			case end == "":
				end = EndStopped
			}
			return end, nil
		}
	}
}

// stuckTime is how long an ended machine may take to leave the guest.
const stuckTime = 5 * time.Second

// quiesce waits until no vCPU of an ended machine is in the guest, for a bounded time.
func (m *Machine) quiesce(limit time.Duration) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.control.Lock()
		defer m.control.Unlock()
		for _, c := range m.vcpus {
			_ = c.awaitParked() // its only error is that the vCPU is gone
		}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return ram.ErrStuck
	}
}
