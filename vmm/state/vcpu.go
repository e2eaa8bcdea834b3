package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

// VCPU is all that a vCPU is, apart from memory.
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

// SaveVCPU reads the state of a stopped vCPU whose pending access is complete. All vCPUs must
// stand still: one that runs can still send another an interrupt. The order is Firecracker's; each
// step may alter what an earlier step has read, so it matters.
func SaveVCPU(k *kvm.VCPU, msrs []uint32, lapic bool) (s VCPU, err error) {
	steps := []func() error{
		// The kernel takes in pending INITs and SIPIs when it is asked for MP_STATE, which changes
		// registers and the local APIC. Read later, it would not fit what was read before.
		func() (err error) { s.MP, err = k.MPState(); return err },
		func() (err error) { s.Regs, err = k.Regs(); return err },
		// SREGS has the bitmap of an interrupt on its way in.
		func() (err error) { s.Sregs, err = k.Sregs(); return err },
		func() (err error) { s.XSave, err = k.XSave(); return err },
		func() (err error) { s.XCRs, err = k.XCRs(); return err },
		func() (err error) { s.Debug, err = k.DebugRegs(); return err },
		// Reading the local APIC first takes in interrupts that hardware has posted to it.
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
		// EVENTS last: everything before may still change what is pending.
		func() (err error) { s.Events, err = k.Events(); return err },
	}
	for _, f := range steps {
		if err := f(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// tscTolerancePPM is how far the frequency of two hosts may differ before the guest's counter is
// scaled; QEMU's figure, and what NTP corrects.
const tscTolerancePPM = 250

// Restore writes the state into a new vCPU, again in Firecracker's order. A [*HostError] that
// forgive makes nil is passed over.
func (s *VCPU) Restore(k *kvm.VCPU, forgive func(error) error) error {
	steps := []func() error{
		// The frequency before anything that touches the counter: it is the unit in which KVM
		// understands what is written there.
		func() error { return forgive(s.scaleTSC(k)) },
		// What the CPU can do decides what the other calls accept: bits of CR4, the size of the
		// XSAVE area, which MSRs there are.
		func() error { return k.SetCPUID(s.CPUID) },
		func() error { return k.SetMPState(s.MP) },
		// REGS clears pending exceptions, so it comes before EVENTS.
		func() error { return k.SetRegs(s.Regs) },
		// SREGS has the base address and the mode of the local APIC: before the APIC, which is
		// otherwise read in the wrong mode, its ID in the wrong place.
		func() error { return k.SetSregs(s.Sregs) },
		func() error { return k.SetXSave(s.XSave) },
		func() error { return k.SetXCRs(s.XCRs) },
		func() error { return k.SetDebugRegs(s.Debug) },
		// The local APIC before the MSRs: TSC_DEADLINE is dropped, without an error, unless the
		// timer is in deadline mode already. A few guests in a hundred then never got a tick again.
		func() error {
			if s.LAPIC == nil {
				return nil
			}
			return k.SetLAPIC(*s.LAPIC)
		},
		// Of the MSRs TSC_DEADLINE last: the kernel turns it into a time by the counter, which must
		// be right by then; against the counter of a new vCPU it lies hours ahead. The counters of
		// several vCPUs, read and written microseconds apart, are made the same by the kernel: it
		// takes values written within a second of each other for one.
		func() error { return setMSRs(k, deadlineLast(s.MSRs), forgive) },
		// EVENTS last, as when saving.
		func() error { return k.SetEvents(s.Events) },
	}
	for _, f := range steps {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// PartTSC writes a counter that is minutes away from any that the machine has had. Before Linux 6.7
// KVM takes the first counter that is written for a vCPU's attempt to follow the others if it lies
// within a second of the one that the vCPU was made with, zero: the counter of a guest that was
// saved in its first second went back to where the new vCPU's was. Only the first vCPU may do this:
// the others shall follow it.
func (s *VCPU) PartTSC(k *kvm.VCPU) error {
	i := slices.IndexFunc(s.MSRs, isMSR(msrTSC))
	if i < 0 {
		return nil
	}
	return k.SetMSRs([]kvm.MSREntry{{Index: msrTSC, Data: s.MSRs[i].Data ^ 1<<40}})
}

// scaleTSC lets the guest's counter run at the speed that the guest has measured.
func (s *VCPU) scaleTSC(k *kvm.VCPU) error {
	host, err := k.TSCKHz()
	if err != nil || !tscDiffers(host, s.TSCKHz) {
		return err
	}
	if err := k.SetTSCKHz(s.TSCKHz); err != nil {
		return &HostError{What: fmt.Sprintf("its counter runs at %d kHz, this host's at %d, and that "+
			"cannot be scaled (%v)", s.TSCKHz, host, err)}
	}
	return nil
}

func tscDiffers(a, b uint32) bool {
	d := int64(a) - int64(b)
	return max(d, -d)*1_000_000 > int64(a)*tscTolerancePPM
}

// setMSRs writes all registers. One that this host refuses is a fault of the host.
func setMSRs(k *kvm.VCPU, list []kvm.MSREntry, forgive func(error) error) error {
	for {
		var refused *kvm.MSRError
		err := k.SetMSRs(list)
		if !errors.As(err, &refused) {
			return err
		}
		i := slices.IndexFunc(list, isMSR(refused.Index))
		err = forgive(&HostError{What: fmt.Sprintf("KVM does not take %#x for the register %s",
			list[i].Data, msrName(refused.Index))})
		if err != nil {
			return err
		}
		list = list[i+1:]
	}
}
