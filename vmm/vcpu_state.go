package vmm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

// vcpuState is all that a vCPU is, apart from memory. (There is no interrupt controller in this
// machine model yet; its state would be saved after DebugRegs and restored before MSRs.)
type vcpuState struct {
	MP     kvm.MPState
	Regs   kvm.Regs
	Sregs  kvm.Sregs
	XSave  []byte
	XCRs   kvm.XCRs
	Debug  kvm.DebugRegs
	TSCKHz uint32
	CPUID  []kvm.CPUIDEntry
	MSRs   []kvm.MSREntry
	Events kvm.VCPUEvents
}

// saveState reads the state of a stopped vCPU whose pending access is complete. The order is
// Firecracker's; each step may alter what an earlier step has read, so it matters.
func saveState(k *kvm.VCPU, msrs []uint32) (s vcpuState, err error) {
	step := func(err2 error) {
		if err == nil {
			err = err2
		}
	}
	var e error
	// MP_STATE first: the kernel takes in pending INITs and SIPIs when it is asked.
	s.MP, e = k.MPState()
	step(e)
	s.Regs, e = k.Regs()
	step(e)
	// SREGS has the bitmap of an interrupt on its way in.
	s.Sregs, e = k.Sregs()
	step(e)
	s.XSave, e = k.XSave()
	step(e)
	s.XCRs, e = k.XCRs()
	step(e)
	s.Debug, e = k.DebugRegs()
	step(e)
	s.TSCKHz, e = k.TSCKHz()
	step(e)
	s.CPUID, e = k.CPUID()
	step(e)
	s.MSRs = make([]kvm.MSREntry, len(msrs))
	for i, index := range msrs {
		s.MSRs[i].Index = index
	}
	step(k.MSRs(s.MSRs))
	// EVENTS last: everything before may still change what is pending.
	s.Events, e = k.Events()
	step(e)
	return s, err
}

// tscTolerancePPM is how far the frequency of two hosts may differ before the guest's counter is
// scaled; QEMU's figure, and what NTP corrects.
const tscTolerancePPM = 250

// restore writes the state into a new vCPU, again in Firecracker's order.
func (s *vcpuState) restore(k *kvm.VCPU) error {
	// The frequency before anything that touches the counter.
	if host, err := k.TSCKHz(); err != nil {
		return err
	} else if tscDiffers(host, s.TSCKHz) {
		if err := k.SetTSCKHz(s.TSCKHz); err != nil {
			return fmt.Errorf("the guest's counter runs at %d kHz, this host's at %d and it cannot "+
				"scale: %w", s.TSCKHz, host, err)
		}
	}
	steps := []func() error{
		// What the CPU can do decides what the other calls accept.
		func() error { return k.SetCPUID(s.CPUID) },
		func() error { return k.SetMPState(s.MP) },
		// REGS clears pending exceptions, so it comes before EVENTS.
		func() error { return k.SetRegs(s.Regs) },
		// SREGS has the base address of the APIC (the APIC itself would follow).
		func() error { return k.SetSregs(s.Sregs) },
		func() error { return k.SetXSave(s.XSave) },
		func() error { return k.SetXCRs(s.XCRs) },
		func() error { return k.SetDebugRegs(s.Debug) },
		// The deadline timer last of the MSRs: it is primed from the time stamp counter.
		func() error { return k.SetMSRs(deadlineLast(s.MSRs)) },
		func() error { return k.SetEvents(s.Events) },
	}
	for _, f := range steps {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func tscDiffers(a, b uint32) bool {
	d := int64(a) - int64(b)
	return max(d, -d)*1_000_000 > int64(a)*tscTolerancePPM
}

// Tags of the sections of a vCPU.
const (
	tagMPState = "MPSTATE"
	tagRegs    = "REGS"
	tagSregs   = "SREGS"
	tagXSave   = "XSAVE"
	tagXCRs    = "XCRS"
	tagDebug   = "DEBUGREG"
	tagTSC     = "TSCKHZ"
	tagCPUID   = "CPUID2"
	tagMSRs    = "MSRS"
	tagEvents  = "EVENTS"
)

// sections encodes the state as the kernel's own structures.
func (s *vcpuState) sections(index int) ([]section, error) {
	var out []section
	var errs []error
	add := func(tag string, v any) {
		sec, err := encodeFixed(tag, index, v)
		out, errs = append(out, sec), append(errs, err)
	}
	add(tagMPState, s.MP)
	add(tagRegs, s.Regs)
	add(tagSregs, s.Sregs)
	add(tagXSave, s.XSave)
	add(tagXCRs, s.XCRs)
	add(tagDebug, s.Debug)
	add(tagTSC, s.TSCKHz)
	add(tagCPUID, s.CPUID)
	add(tagMSRs, s.MSRs)
	add(tagEvents, s.Events)
	return out, errors.Join(errs...)
}

// decode takes one section if it is one of a vCPU.
func (s *vcpuState) decode(sec section) (known bool, err error) {
	switch sec.tag {
	case tagMPState:
		return true, decodeFixed(sec, &s.MP)
	case tagRegs:
		return true, decodeFixed(sec, &s.Regs)
	case tagSregs:
		return true, decodeFixed(sec, &s.Sregs)
	case tagXSave:
		s.XSave = slices.Clone(sec.data)
		return true, nil
	case tagXCRs:
		return true, decodeFixed(sec, &s.XCRs)
	case tagDebug:
		return true, decodeFixed(sec, &s.Debug)
	case tagTSC:
		return true, decodeFixed(sec, &s.TSCKHz)
	case tagCPUID:
		s.CPUID, err = decodeList[kvm.CPUIDEntry](sec)
		return true, err
	case tagMSRs:
		s.MSRs, err = decodeList[kvm.MSREntry](sec)
		return true, err
	case tagEvents:
		return true, decodeFixed(sec, &s.Events)
	}
	return false, nil
}

// decodeList reads a section that is an array.
func decodeList[T any](sec section) ([]T, error) {
	var one T
	size := binary.Size(one)
	if len(sec.data)%size != 0 {
		return nil, badState("section %s %d of %d bytes is not made of entries of %d", sec.tag, sec.index,
			len(sec.data), size)
	}
	list := make([]T, len(sec.data)/size)
	return list, decodeFixed(sec, list)
}

// vcpuTags are the sections that every vCPU must have.
var vcpuTags = []string{tagMPState, tagRegs, tagSregs, tagXSave, tagXCRs, tagDebug, tagTSC,
	tagCPUID, tagMSRs, tagEvents}
