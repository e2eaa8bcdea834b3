package vmm

import (
	"errors"
	"fmt"
	"time"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/vmm/vcpu"
)

// newMachine makes a machine with the console and the disks of a configuration. It calls memory after
// everything that needs no memory is done, and owns the result, even if it fails later.
func newMachine(f state.Facts, memory func() (*ram.Memory, error), cfg Config) (_ *Machine, err error) {
	m := &Machine{log: cfg.Log, facts: f, ports: newPorts(time.Now), phase: phasePaused,
		portBus: device.NewBus("port"), mmioBus: device.NewBus("address"), devices: device.NewSet(),
		begun: make(chan struct{}), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.program, err = loadProgram(f); err != nil {
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
	if err := m.addVCPUs(sys); err != nil {
		return nil, err
	}
	if m.mem, err = memory(); err != nil {
		return nil, err
	}
	if err := m.addSlots(); err != nil {
		return nil, err
	}
	return m, m.addDevices(cfg)
}

// Pages that KVM needs for itself, in the hole below 4 GiB.
const (
	tssAddr         = 0xfffb_d000 // three pages
	identityMapAddr = 0xfffb_c000
)

// setUpVM makes what the vCPUs share. It must come before the first vCPU: KVM needs its own pages then,
// and a vCPU gets a local APIC only if KVM_CREATE_IRQCHIP came before it.
func (m *Machine) setUpVM() error {
	if err := m.vm.SetTSSAddr(tssAddr); err != nil {
		return err
	}
	if err := m.vm.SetIdentityMapAddr(identityMapAddr); err != nil {
		return err
	}
	if m.facts.IRQChip {
		if err := m.vm.CreateIRQChip(); err != nil {
			return err
		}
		if err := m.vm.CreatePIT2(); err != nil {
			return err
		}
	}
	return nil
}

// addVCPUs makes the vCPUs, parked, with this host's features.
func (m *Machine) addVCPUs(sys *kvm.System) (err error) {
	if limit, err := sys.Check(kvm.CapMaxVCPUs); err != nil || limit > 0 && m.facts.VCPUs > limit {
		return errors.Join(err, fmt.Errorf("%d vCPUs are requested, and KVM allows at most %d",
			m.facts.VCPUs, limit))
	}
	if m.known, err = sys.MSRIndexList(); err != nil {
		return err
	}
	features, err := state.HostCPUID(sys)
	if err != nil {
		return err
	}
	for i := range m.facts.VCPUs {
		k, err := m.vm.CreateVCPU(i)
		if err != nil {
			return err
		}
		c := vcpu.New(k, vcpu.Hooks{Exit: m.exit, Ended: m.vcpuEnded, Started: m.vcpuStarted})
		if err := c.Launch(); err != nil {
			return err
		}
		m.vcpus = append(m.vcpus, c)
		cpuid := state.CPUIDFor(features, i, m.facts.VCPUs)
		if err := c.Do(func() error { return k.SetCPUID(cpuid) }); err != nil {
			return err
		}
	}
	return nil
}

// loadProgram finds the guest program. For a kernel the result has only a name: its code is in guest memory.
func loadProgram(f state.Facts) (*guest.Program, error) {
	if f.Kernel() {
		return &guest.Program{Name: state.LinuxGuest, CPUs: max(f.VCPUs, 1)}, nil
	}
	return guest.Load(f.Guest)
}
