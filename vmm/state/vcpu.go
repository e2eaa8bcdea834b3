package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

// VCPU is the state of a vCPU.
type VCPU struct {
	MP     kvm.MPState
	Regs   kvm.Regs
	Sregs  kvm.Sregs
	XSave  []byte
	XCRs   kvm.XCRs
	Debug  kvm.DebugRegs
	LAPIC  *kvm.LAPIC // nil in a machine without interrupt controllers
	TSCKHz uint32
	CPUID  []kvm.CPUIDEntry
	MSRs   []kvm.MSREntry
	Events kvm.VCPUEvents
}

// SaveVCPU reads the state of a stopped vCPU whose pending access is complete. All vCPUs must be
// stopped: a running one can still send an interrupt to another. The order of the steps is
// Firecracker's. It matters, because each step may change what an earlier step has read.
func SaveVCPU(k *kvm.VCPU, msrs []uint32, lapic bool) (s VCPU, err error) {
	steps := []func() error{
		// First: reading MP_STATE processes pending INITs and SIPIs, which changes registers and the local APIC.
		func() (err error) { s.MP, err = k.MPState(); return err },
		func() (err error) { s.Regs, err = k.Regs(); return err },
		// SREGS has the bitmap of an interrupt that is being injected.
		func() (err error) { s.Sregs, err = k.Sregs(); return err },
		func() (err error) { s.XSave, err = k.XSave(); return err },
		func() (err error) { s.XCRs, err = k.XCRs(); return err },
		func() (err error) { s.Debug, err = k.DebugRegs(); return err },
		// Reading the local APIC first moves interrupts that hardware has posted into it.
		func() error {
			if !lapic {
				return nil
			}
			l, err := k.LAPIC()
			s.LAPIC = &l
			return err
		},
		func() (err error) { s.TSCKHz, err = k.TSCKHz(); return err },
		func() (err error) { s.CPUID, err = k.CPUID(); return err },
		func() error {
			s.MSRs = make([]kvm.MSREntry, len(msrs))
			for i, index := range msrs {
				s.MSRs[i].Index = index
			}
			err := k.MSRs(s.MSRs)
			keepDeadline(s.MSRs, s.LAPIC)
			return err
		},
		// EVENTS last: all other steps may change what is pending.
		func() (err error) { s.Events, err = k.Events(); return err },
	}
	for _, f := range steps {
		if err := f(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// tscTolerancePPM is how much the frequencies of two hosts may differ before the guest's counter is
// scaled. It is QEMU's value; NTP can correct such a difference.
const tscTolerancePPM = 250

// Restore sets the state of a new vCPU, again in Firecracker's order. forgive is called with each
// [*HostError]; if it returns nil, the restore continues without that part.
func (s *VCPU) Restore(k *kvm.VCPU, forgive func(error) error) error {
	steps := []func() error{
		// The frequency before anything that sets the counter: KVM interprets the counter's values by it.
		func() error { return forgive(s.scaleTSC(k)) },
		// CPUID decides what the other calls accept: bits of CR4, the size of the XSAVE area, the MSRs.
		func() error { return k.SetCPUID(s.CPUID) },
		func() error { return k.SetMPState(s.MP) },
		// REGS clears pending exceptions, so it comes before EVENTS.
		func() error { return k.SetRegs(s.Regs) },
		// SREGS has the base address and the mode of the local APIC, so it comes before the APIC.
		// Otherwise KVM interprets the APIC in the wrong mode, with its ID at the wrong place.
		func() error { return k.SetSregs(s.Sregs) },
		func() error { return k.SetXSave(s.XSave) },
		func() error { return k.SetXCRs(s.XCRs) },
		func() error { return k.SetDebugRegs(s.Debug) },
		// The local APIC before the MSRs: KVM ignores TSC_DEADLINE, without an error, unless the timer
		// is in deadline mode already. In the wrong order, a few percent of guests never got a timer
		// tick again.
		func() error {
			if s.LAPIC == nil {
				return nil
			}
			return k.SetLAPIC(*s.LAPIC)
		},
		// TSC_DEADLINE is the last of the MSRs: KVM converts it to a time by the counter, which must be
		// set before; relative to the counter of a new vCPU it is hours ahead. The counters of several
		// vCPUs are read and written microseconds apart. KVM makes them equal: it treats values written
		// within a second as the same.
		func() error { return setMSRs(k, deadlineLast(s.MSRs), forgive) },
		// EVENTS last, as in SaveVCPU.
		func() error { return k.SetEvents(s.Events) },
	}
	for _, f := range steps {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// PartTSC sets the time stamp counter to a value that is minutes away from any of the machine's. Before
// Linux 6.7 KVM ignores the first value that is written if it is within a second of the new vCPU's
// counter, zero, because it assumes an attempt to synchronise with other vCPUs. So a guest that was
// saved in its first second would get the wrong counter. Only the first vCPU may do this; the others
// follow it.
func (s *VCPU) PartTSC(k *kvm.VCPU) error {
	i := slices.IndexFunc(s.MSRs, isMSR(msrTSC))
	if i < 0 {
		return nil
	}
	return k.SetMSRs([]kvm.MSREntry{{Index: msrTSC, Data: s.MSRs[i].Data ^ 1<<40}})
}

// scaleTSC makes the guest's counter run at the frequency that the guest has measured.
func (s *VCPU) scaleTSC(k *kvm.VCPU) error {
	host, err := k.TSCKHz()
	if err != nil || !tscDiffers(host, s.TSCKHz) {
		return err
	}
	if err := k.SetTSCKHz(s.TSCKHz); err != nil {
		return &HostError{What: fmt.Sprintf("its time stamp counter runs at %d kHz, this host's at %d kHz, "+
			"and that cannot be scaled (%v)", s.TSCKHz, host, err)}
	}
	return nil
}

func tscDiffers(a, b uint32) bool {
	d := int64(a) - int64(b)
	return max(d, -d)*1_000_000 > int64(a)*tscTolerancePPM
}

// setMSRs writes all registers. If this host refuses one, the error is a [*HostError].
func setMSRs(k *kvm.VCPU, list []kvm.MSREntry, forgive func(error) error) error {
	for {
		var refused *kvm.MSRError
		err := k.SetMSRs(list)
		if !errors.As(err, &refused) {
			return err
		}
		i := slices.IndexFunc(list, isMSR(refused.Index))
		err = forgive(&HostError{What: fmt.Sprintf("KVM refuses the value %#x for register %s",
			list[i].Data, msrName(refused.Index))})
		if err != nil {
			return err
		}
		list = list[i+1:]
	}
}
