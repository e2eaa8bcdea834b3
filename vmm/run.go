package vmm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/meter"
	"github.com/thawfs/thaw/vmm/ram"
)

// Run starts a guest program or a kernel in a new machine and returns when the machine ends: the
// program is finished, the API or the context stops it, or cfg.For has passed. If the machine ran, the
// report is not nil even with an error.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	m, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return runToEnd(ctx, cfg, m, nil)
}

// Restore makes a machine from a checkpoint directory, runs it, and returns when it ends, as Run does.
// The error is a [*ram.LostError] if a page of memory could not be read, and a [*WrongByteError] if the
// guest found wrong contents in its memory.
func Restore(ctx context.Context, dir string, cfg Config) (*Report, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	l, err := load(dir, cfg)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", dir, err)
	}
	return runToEnd(ctx, cfg, l.Machine, l)
}

// runToEnd runs a machine to its end and closes it.
func runToEnd(ctx context.Context, cfg Config, m *Machine, l *loaded) (rep *Report, err error) {
	defer func() {
		if !errors.Is(err, ram.ErrStuck) { // a stuck machine cannot be closed: it ends with the process
			err = errors.Join(err, m.Close())
		}
	}()
	w := m.watch()
	defer w.stop()
	stalls := meter.SampleStalls(m.vcpus, m.begun, m.firstInstruction)
	defer func() {
		if list := stalls.Stop(); rep != nil {
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
	stop := m.feedConsole(cfg.Input)
	defer func() { err = errors.Join(err, stop()) }()
	if !cfg.Paused {
		if err := m.Resume(); err != nil {
			return nil, err
		}
	}
	if cfg.Started != nil {
		cfg.Started()
	}
	end, err := m.await(ctx, cfg, l)
	return m.report(cfg, l, end), err
}

// await waits until the machine ends, or ends it when its time is over or ctx is done. It counts the
// touched pages when the window ends.
func (m *Machine) await(ctx context.Context, cfg Config, l *loaded) (end string, err error) {
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
			l.count()
		case <-limit:
			limit, end = nil, endTime
			m.Stop()
		case <-interrupt:
			interrupt, end = nil, endInterrupted
			m.Stop()
		case <-m.ended:
			stuck := m.quiesce(stuckTime)
			l.count()
			err := m.Wait(context.Background())
			switch {
			case stuck != nil:
				return endFailed, errors.Join(err, stuck)
			case err == nil:
				return endFinished, nil
			case errors.Is(err, device.ErrPowerOff):
				return endPowerOff, nil
			case errors.Is(err, device.ErrReset):
				return endReset, nil
			case !errors.Is(err, errStopped):
				return endFailed, err
			case end == endInterrupted:
				return end, context.Cause(ctx)
			case end == "":
				end = endStopped
			}
			return end, nil
		}
	}
}

// stuckTime is how long the vCPUs of an ended machine may take to leave the guest.
const stuckTime = 5 * time.Second

// quiesce waits until no vCPU of an ended machine is in the guest, for a bounded time.
func (m *Machine) quiesce(limit time.Duration) error {
	_, done := within(limit, func() error {
		m.control.Lock()
		defer m.control.Unlock()
		for _, c := range m.vcpus {
			_ = c.AwaitParked() // fails only if the vCPU is gone already
		}
		return nil
	})
	if !done {
		return ram.ErrStuck
	}
	return nil
}

// within calls a function that may block on a hanging file system, and waits for it no longer than
// limit. done is false if it has not returned by then.
func within[T any](limit time.Duration, f func() T) (v T, done bool) {
	ch := make(chan T, 1)
	go func() { ch <- f() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v = <-ch:
		return v, true
	case <-timer.C:
		return v, false
	}
}
