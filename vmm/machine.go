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

// Errors by which a caller decides.
var (
	// errNotRunning refuses what needs a machine that runs.
	errNotRunning = errors.New("the machine is paused")
	// errEnded refuses what needs a machine that has not ended.
	errEnded = errors.New("the machine has ended")
	// errTracing refuses a checkpoint of a machine whose touches after another one are being recorded.
	errTracing = errors.New("the machine is being traced after a checkpoint")
	// errNoParent refuses a differential checkpoint of a machine that is not mapped from a checkpoint.
	errNoParent = errors.New("the machine's memory is not mapped from a checkpoint: " +
		"it has neither been restored nor saved")
	// errStopped is the end of a machine that was stopped from outside.
	errStopped = errors.New("the machine was stopped")
)

// phase is the state of a machine: whether its vCPUs may run.
type phase string

// States. A machine begins paused; an ended one stays ended.
const (
	phasePaused  phase = "paused"
	phaseRunning phase = "running"
	phaseEnded   phase = "ended"
)

// Machine is a virtual machine: memory, vCPUs, and the devices on its two buses.
//
// Its methods may be called from any goroutine. Those that change the state follow one after the
// other. Close must be the last.
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
	known   []uint32 // model specific registers that KVM can save
	msrs    []uint32 // those of them that are saved

	counters counters
	control  sync.Mutex // one change of state at a time; held before mu
	closed   bool       // guarded by control
	drained  error      // guarded by control: what draining the devices of a paused machine came to
	tracing  bool       // guarded by control: touches after a checkpoint are being recorded

	mu    sync.Mutex // guards what follows
	phase phase
	err   error         // why it ended; nil: the guest program was finished
	first time.Time     // first instruction, zero before
	begun chan struct{} // closed then
	ended chan struct{} // closed at the end
}

// Resume lets a paused machine run. It is not an error if it runs already.
func (m *Machine) Resume() error {
	m.control.Lock()
	defer m.control.Unlock()
	return m.resume()
}

func (m *Machine) resume() error {
	// Devices before vCPUs: what a guest looks at first may be whether an interrupt is there.
	if m.is(phasePaused) {
		m.drained = nil
		if err := m.devices.Resume(); err != nil {
			return err
		}
	}
	// The vCPUs are let go under the lock: end, which stops them, comes wholly before or after.
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

// Pause stops the vCPUs, with nothing pending. It is not an error if the machine is paused already.
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
	// With no vCPU left that gives them more to do. The caller that needs the state gets the error.
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

// Wait returns when the machine has ended, or the context: nil when the guest program was finished,
// else the reason.
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

// Close ends the machine and gives everything back.
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

// eachVCPU does something on the thread of each vCPU, which must be parked, one after the other.
func (m *Machine) eachVCPU(what string, f func(i int, k *kvm.VCPU) error) error {
	for i, c := range m.vcpus {
		if err := c.Do(func() error { return f(i, c.KVM) }); err != nil {
			return fmt.Errorf("%s vCPU %d: %w", what, i, err)
		}
	}
	return nil
}

// vcpuStarted notes the time before the first instruction.
func (m *Machine) vcpuStarted(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		m.first = t
		m.ports.begin(t)
		close(m.begun)
	}
}

// is says whether the machine is in a state.
func (m *Machine) is(s phase) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.phase == s
}

// firstInstruction is when that was; zero: not yet.
func (m *Machine) firstInstruction() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first
}

// guestInfo says what the guest was doing when its device was read.
func (m *Machine) guestInfo(p state.Ports) state.GuestInfo {
	g := state.GuestInfo{Program: m.facts.Guest.Program, Args: m.facts.Guest.Args, Done: p.Done,
		Ready: p.Ready != 0}
	if m.program != nil {
		g.Units = m.program.Units
	}
	return g
}
