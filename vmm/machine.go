package vmm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
)

// Errors by which a caller decides.
var (
	// ErrRunning refuses what needs a stopped vCPU.
	ErrRunning = errors.New("the machine is running")
	// ErrEnded refuses what needs a machine that has not ended.
	ErrEnded = errors.New("the machine has ended")
	// ErrStopped is the end of a machine that was stopped from outside.
	ErrStopped = errors.New("the machine was stopped")
)

// State of a machine.
type State string

// States. A machine begins paused; an ended one stays ended.
const (
	StatePaused  State = "paused"
	StateRunning State = "running"
	StateEnded   State = "ended"
)

// Machine is a virtual machine: memory, vCPUs, and the ports of a guest program.
//
// Its methods may be called from any goroutine. Those that change the state follow one after the
// other. Close must be the last.
type Machine struct {
	log     *slog.Logger
	facts   facts
	program *guest.Program

	vm      *kvm.VM
	mem     *memory
	tracker *tracker // nil for a machine that was not restored
	ports   *ports
	vcpus   []*vcpu
	msrs    []uint32 // what of the model specific registers is saved

	control sync.Mutex // one change of state at a time; held before mu
	closed  bool       // guarded by control

	mu    sync.Mutex // guards what follows
	state State
	err   error         // why it ended; nil: the guest program was finished
	first time.Time     // first instruction, zero before
	begun chan struct{} // closed then
	ended chan struct{} // closed at the end
}

// facts are what a machine is, apart from its state: the MACHINE section of a state file.
type facts struct {
	Regions []Region   `json:"regions"`
	VCPUs   int        `json:"vcpus"`
	Guest   guest.Spec `json:"guest"`
}

const tagMachine = "MACHINE"
const tagPorts = "PORTS"

// newMachine sets up KVM around some memory. It takes over the memory, also when it fails.
func newMachine(f facts, mem *memory, log *slog.Logger) (_ *Machine, err error) {
	m := &Machine{log: log, facts: f, mem: mem, ports: newPorts(time.Now), state: StatePaused,
		begun: make(chan struct{}), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if m.program, err = guest.Load(f.Guest); err != nil {
		return nil, err
	}
	sys, err := kvm.Open()
	if err != nil {
		return nil, err
	}
	defer sys.Close()
	if m.vm, err = sys.CreateVM(); err != nil {
		return nil, err
	}
	if err := m.setUpVM(); err != nil {
		return nil, err
	}
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	known, err := sys.MSRIndexList()
	if err != nil {
		return nil, err
	}
	for i := range f.VCPUs {
		if err := m.addVCPU(i, cpuid, known); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Machine) setUpVM() error {
	if err := m.vm.SetTSSAddr(tssAddr); err != nil {
		return err
	}
	if err := m.vm.SetIdentityMapAddr(identityMapAddr); err != nil {
		return err
	}
	base := uint64(address(m.mem.mapping))
	for i, r := range m.facts.Regions {
		err := m.vm.SetMemoryRegion(kvm.MemoryRegion{Slot: uint32(i), GuestPhysAddr: r.GPA,
			MemorySize: r.Size, UserspaceAddr: base + r.GPA})
		if err != nil {
			return err
		}
	}
	return nil
}

// addVCPU makes a vCPU with this host's features and parks it.
func (m *Machine) addVCPU(id int, cpuid []kvm.CPUIDEntry, known []uint32) error {
	k, err := m.vm.CreateVCPU(id)
	if err != nil {
		return err
	}
	c := newVCPU(k)
	c.handle, c.ended, c.started = m.exit, m.vcpuEnded, m.vcpuStarted
	if err := c.launch(); err != nil {
		return errors.Join(err, k.Close())
	}
	m.vcpus = append(m.vcpus, c)
	return c.do(func() error {
		if err := k.SetCPUID(cpuid); err != nil {
			return err
		}
		if id == 0 {
			m.msrs = guestMSRs(known, k)
		}
		return nil
	})
}

// Start lets a paused machine run.
func (m *Machine) Start() error { return m.Resume() }

// Resume lets a paused machine run. It is no error if it runs already.
func (m *Machine) Resume() error {
	m.control.Lock()
	defer m.control.Unlock()
	return m.resume()
}

func (m *Machine) resume() error {
	// The vCPUs are let go under the lock: end, which stops them, comes wholly before or after.
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == StateEnded {
		return ErrEnded
	}
	m.state = StateRunning
	for _, c := range m.vcpus {
		c.run()
	}
	return nil
}

// Pause stops the vCPUs, with nothing pending. It is no error if the machine is paused already.
func (m *Machine) Pause() error {
	m.control.Lock()
	defer m.control.Unlock()
	return m.pause()
}

func (m *Machine) pause() error {
	for _, c := range m.vcpus {
		c.askToPark()
	}
	for _, c := range m.vcpus {
		if err := c.awaitParked(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == StateEnded {
		return ErrEnded
	}
	m.state = StatePaused
	return nil
}

// Stop ends the machine. It is no error if it has ended already.
func (m *Machine) Stop() { m.end(ErrStopped) }

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
	m.end(ErrStopped)
	m.control.Lock()
	defer m.control.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var errs []error
	for _, c := range m.vcpus {
		errs = append(errs, c.stop())
	}
	if m.tracker != nil {
		errs = append(errs, m.tracker.Close())
	}
	if m.vm != nil {
		errs = append(errs, m.vm.Close())
	}
	return errors.Join(append(errs, m.mem.Close())...)
}

// end marks the machine as ended, once, and stops all vCPUs. It does not wait for them.
func (m *Machine) end(err error) {
	m.mu.Lock()
	if m.state == StateEnded {
		m.mu.Unlock()
		return
	}
	m.state = StateEnded
	if errors.As(err, &guestDone{}) {
		err = nil
	}
	m.err = err
	close(m.ended)
	m.mu.Unlock()
	for _, c := range m.vcpus {
		c.askToPark()
	}
}

// vcpuStarted notes the time before the first instruction.
func (m *Machine) vcpuStarted(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first.IsZero() {
		m.first = t
		m.ports.series.begin(t)
		close(m.begun)
	}
}

// saved is the state of a stopped machine but for its memory.
type saved struct {
	facts facts
	ports portState
	vcpus []vcpuState
}

// save reads the state. The machine must be paused.
func (m *Machine) save() (saved, error) {
	m.mu.Lock()
	state := m.state
	m.mu.Unlock()
	switch state {
	case StateRunning:
		return saved{}, ErrRunning
	case StateEnded:
		return saved{}, ErrEnded
	}
	s := saved{facts: m.facts, vcpus: make([]vcpuState, len(m.vcpus))}
	// Devices before vCPUs: draining a device may still raise an interrupt.
	s.ports = m.ports.snapshot()
	for i, c := range m.vcpus {
		err := c.do(func() (err error) {
			s.vcpus[i], err = saveState(c.k, m.msrs)
			return err
		})
		if err != nil {
			return saved{}, fmt.Errorf("save vCPU %d: %w", i, err)
		}
	}
	return s, nil
}

// loadState sets the state of a new machine.
func (m *Machine) loadState(s saved) error {
	if err := m.ports.restore(s.ports); err != nil {
		return err
	}
	for i, c := range m.vcpus {
		if err := c.do(func() error { return s.vcpus[i].restore(c.k) }); err != nil {
			return fmt.Errorf("restore vCPU %d: %w", i, err)
		}
	}
	return nil
}
