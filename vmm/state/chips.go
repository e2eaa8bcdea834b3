package state

import (
	"fmt"
	"time"

	"github.com/thawfs/thaw/vmm/kvm"
)

// Chips is the state of what KVM emulates once for all vCPUs of a machine: interrupt controllers,
// interval timer, paravirtual clock.
type Chips struct {
	PIT   kvm.PIT
	Clock kvm.Clock
	Chips [chipCount]kvm.IRQChip // PICMaster, PICSlave, IOAPIC
}

const chipCount = kvm.IOAPIC + 1

// SaveChips reads the state. All vCPUs must be stopped and saved.
func SaveChips(vm *kvm.VM) (*Chips, error) {
	var s Chips
	var err error
	if s.PIT, err = vm.PIT2(); err != nil {
		return nil, err
	}
	if s.Clock, err = vm.Clock(); err != nil {
		return nil, err
	}
	if s.Clock.Flags&kvm.ClockRealtime == 0 {
		// If the host's clock source is not the TSC, KVM does not return the wall clock.
		s.Clock.Realtime = uint64(time.Now().UnixNano())
		s.Clock.Flags |= kvm.ClockRealtime
	}
	for id := range s.Chips {
		if s.Chips[id], err = vm.IRQChip(uint32(id)); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

// ClockMode says how a guest's clock treats the time between a checkpoint and its restore.
type ClockMode string

// Clock modes.
const (
	// ClockResume continues where the clock stopped, as if no time had passed. The guest's wall clock
	// is late until something sets it.
	ClockResume ClockMode = "resume"
	// ClockRealtime adds the time that has passed: timers that became due meanwhile fire at once.
	ClockRealtime ClockMode = "realtime"
)

// Restore sets the state, in a machine whose vCPUs have their state and have not run yet. The error is
// a [*HostError] if this host cannot set the clock in the given mode.
//
// The clock must be set before any vCPU runs: a guest that reads it too early would see it jump back,
// and wait until the old time is reached again (Cloud Hypervisor had guests that hung for minutes). The
// vCPUs must be set before the I/O APIC: setting it passes interrupts that wait at its inputs to the
// local APICs, and setting the local APICs later would overwrite them.
func (s *Chips) Restore(vm *kvm.VM, mode ClockMode) error {
	if err := vm.SetPIT2(s.PIT); err != nil {
		return err
	}
	clock, err := s.clock(vm, mode)
	if err != nil {
		return err
	}
	if err := vm.SetClock(clock); err != nil {
		return err
	}
	for _, c := range s.Chips {
		if err := vm.SetIRQChip(c); err != nil {
			return err
		}
	}
	return nil
}

// clock returns the value to set the clock to. It drops the flags that were read with the clock: KVM
// refuses some of them on a write, and gives others another meaning.
func (s *Chips) clock(vm *kvm.VM, mode ClockMode) (kvm.Clock, error) {
	c := kvm.Clock{Clock: s.Clock.Clock}
	switch mode {
	case ClockResume, "":
		return c, nil
	case ClockRealtime:
	default:
		return c, fmt.Errorf("clock mode %q is unknown; use %q or %q", mode, ClockResume, ClockRealtime)
	}
	if s.Clock.Flags&kvm.ClockRealtime == 0 {
		return c, &HostError{What: "its state does not say when it was saved, so its clock cannot " +
			"follow the wall clock"}
	}
	if flags, err := vm.Check(kvm.CapAdjustClock); err != nil || flags&kvm.ClockRealtime == 0 {
		return c, &HostError{What: "KVM of this kernel cannot set a guest's clock by the wall clock " +
			"(Linux 5.16 can)"}
	}
	c.Flags, c.Realtime = kvm.ClockRealtime, s.Clock.Realtime
	return c, nil
}
