package vmm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/vmm/vcpu"
	"github.com/thawfs/thaw/wss"
)

const pageSize = wss.PageSize

// Errors that callers compare with errors.Is.
var (
	// errNotRunning: the operation needs a running machine.
	errNotRunning = errors.New("the machine is paused")
	// errEnded: the operation needs a machine that has not ended.
	errEnded = errors.New("the machine has ended")
	// errTracing: a machine cannot be saved while its first touches after another checkpoint are recorded.
	errTracing = errors.New("the machine is being traced after a checkpoint")
	// errNoParent: a differential checkpoint needs memory that is mapped from a checkpoint.
	errNoParent = errors.New("the machine's memory is not mapped from a checkpoint: " +
		"it has neither been restored nor saved")
	// errStopped: the machine was stopped by its user.
	errStopped = errors.New("the machine was stopped")
)

// phase says whether the vCPUs of a machine may run.
type phase string

// Phases. A new machine is paused; an ended one stays ended.
const (
	phasePaused  phase = "paused"
	phaseRunning phase = "running"
	phaseEnded   phase = "ended"
)

// Machine is a virtual machine: memory, vCPUs, and the devices on its two buses.
//
// Its methods may be called from any goroutine. Those that change its phase run one after another.
// Close must be the last call.
type Machine struct {
	log     *slog.Logger
	facts   state.Facts
	program *guest.Program

	vm      *kvm.VM
	mem     *ram.Memory
	portBus *device.Bus
	mmioBus *device.Bus
	devices *device.Set    // of a kernel
	serial  *device.Serial // one of them; nil for a guest program
	ports   *ports
	vcpus   []*vcpu.Thread
	known   []uint32 // model-specific registers that KVM can save
	msrs    []uint32 // those that are saved

	counters counters
	control  sync.Mutex // one change of state at a time; held before mu
	closed   bool       // guarded by control
	drained  error      // guarded by control: the error of draining the devices at the last pause
	tracing  bool       // guarded by control: first touches after a checkpoint are being recorded

	mu    sync.Mutex // guards what follows
	phase phase
	err   error         // why it ended; nil: the guest program was finished
	first time.Time     // first instruction, zero before
	begun chan struct{} // closed at the first instruction
	ended chan struct{} // closed at the end
}

// Resume starts a paused machine. It does nothing if the machine runs already.
func (m *Machine) Resume() error {
	m.control.Lock()
	defer m.control.Unlock()
	return m.resume()
}

func (m *Machine) resume() error {
	// Devices before vCPUs: the guest may check at once whether an interrupt is pending.
	if m.is(phasePaused) {
		m.drained = nil
		if err := m.devices.Resume(); err != nil {
			return err
		}
	}
	// The vCPUs are started under the lock, so that end, which stops them, runs either before or after.
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase == phaseEnded {
		return errEnded
	}
	m.phase = phaseRunning
	m.ports.release()
	m.counters.resumed()
	for _, c := range m.vcpus {
		c.Run()
	}
	return nil
}

// Pause stops the vCPUs, with no access half done, and drains the devices. It does nothing if the
// machine is paused already.
func (m *Machine) Pause() error {
	m.control.Lock()
	defer m.control.Unlock()
	return m.pause()
}

func (m *Machine) pause() error {
	m.ports.hold()
	for _, c := range m.vcpus {
		c.AskToPark()
	}
	for _, c := range m.vcpus {
		if c.AwaitParked() != nil {
			return errEnded
		}
	}
	// All vCPUs are stopped now, so the devices get no more work. An error is kept for the caller that
	// saves the state.
	m.drained = m.devices.Drain()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase == phaseEnded {
		return errEnded
	}
	if m.phase == phaseRunning {
		m.counters.paused()
	}
	m.phase = phasePaused
	return nil
}

// Stop ends the machine. It is not an error if it has ended already.
func (m *Machine) Stop() { m.end(errStopped) }

// Wait returns when the machine or the context has ended: nil if the guest program finished its work,
// otherwise the reason.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.ended:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the machine and releases its resources.
func (m *Machine) Close() error {
	m.end(errStopped)
	m.control.Lock()
	defer m.control.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var errs []error
	for _, c := range m.vcpus {
		errs = append(errs, c.Stop())
	}
	errs = append(errs, m.devices.Close())
	if m.vm != nil {
		errs = append(errs, m.vm.Close())
	}
	if m.mem != nil {
		errs = append(errs, m.mem.Close())
	}
	return errors.Join(errs...)
}

// end marks the machine as ended, once, and stops all vCPUs. It does not wait for them.
func (m *Machine) end(err error) {
	m.mu.Lock()
	if m.phase == phaseEnded {
		m.mu.Unlock()
		return
	}
	m.phase = phaseEnded
	if errors.As(err, &guestDone{}) {
		err = nil
	}
	m.err = err
	close(m.ended)
	m.mu.Unlock()
	m.ports.hold()
	for _, c := range m.vcpus {
		c.AskToPark()
	}
}

// eachVCPU calls f on the thread of each vCPU, one after another. The vCPUs must be parked.
func (m *Machine) eachVCPU(what string, f func(i int, k *kvm.VCPU) error) error {
	for i, c := range m.vcpus {
		if err := c.Do(func() error { return f(i, c.KVM) }); err != nil {
			return fmt.Errorf("%s vCPU %d: %w", what, i, err)
		}
	}
	return nil
}

// vcpuStarted records the time of the first instruction.
func (m *Machine) vcpuStarted(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		m.first = t
		m.ports.begin(t)
		close(m.begun)
	}
}

// is says whether the machine is in a phase.
func (m *Machine) is(s phase) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.phase == s
}

// firstInstruction returns when the first instruction ran; zero: not yet.
func (m *Machine) firstInstruction() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first
}

// guestInfo returns what the guest is doing, from the state of its device.
func (m *Machine) guestInfo(p state.Ports) state.GuestInfo {
	g := state.GuestInfo{Program: m.facts.Guest.Program, Args: m.facts.Guest.Args, Done: p.Done,
		Ready: p.Ready != 0}
	if m.program != nil {
		g.Units = m.program.Units
	}
	return g
}
