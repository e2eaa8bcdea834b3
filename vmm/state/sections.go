package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

// Tags of the sections of a vCPU, with its number as index.
const (
	tagMPState = "MPSTATE"
	tagRegs    = "REGS"
	tagSregs   = "SREGS"
	tagXSave   = "XSAVE"
	tagXCRs    = "XCRS"
	tagDebug   = "DEBUGREG"
	tagLAPIC   = "LAPIC"
	tagTSC     = "TSCKHZ"
	tagCPUID   = "CPUID2"
	tagMSRs    = "MSRS"
	tagEvents  = "EVENTS"
)

// Tags of the sections of a machine.
const (
	tagChanged = "CHANGED" // changed.go
	tagMachine = "MACHINE"
	tagPorts   = "PORTS"
	tagIRQChip = "IRQCHIP" // index: which of the three
	tagPIT     = "PIT2"
	tagClock   = "CLOCK"
)

// vcpuTags are the sections that every vCPU has; those with interrupt controllers have tagLAPIC too.
func vcpuTags(irqchip bool) []string {
	tags := []string{tagMPState, tagRegs, tagSregs, tagXSave, tagXCRs, tagDebug, tagTSC, tagCPUID,
		tagMSRs, tagEvents}
	if irqchip {
		tags = append(tags, tagLAPIC)
	}
	return tags
}

// encoder gathers sections of fixed layout.
type encoder struct {
	list []section
	errs []error
}

func (e *encoder) add(tag string, index int, v any) {
	s, err := encodeFixed(tag, index, v)
	e.list, e.errs = append(e.list, s), append(e.errs, err)
}

// encode adds the state as the kernel's own structures.
func (s *VCPU) encode(e *encoder, index int) {
	e.add(tagMPState, index, s.MP)
	e.add(tagRegs, index, s.Regs)
	e.add(tagSregs, index, s.Sregs)
	e.add(tagXSave, index, s.XSave)
	e.add(tagXCRs, index, s.XCRs)
	e.add(tagDebug, index, s.Debug)
	if s.LAPIC != nil {
		e.add(tagLAPIC, index, s.LAPIC)
	}
	e.add(tagTSC, index, s.TSCKHz)
	e.add(tagCPUID, index, s.CPUID)
	e.add(tagMSRs, index, s.MSRs)
	e.add(tagEvents, index, s.Events)
}

// decode takes one section if it is one of a vCPU.
func (s *VCPU) decode(sec section) (known bool, err error) {
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
	case tagLAPIC:
		s.LAPIC = new(kvm.LAPIC)
		return true, decodeFixed(sec, s.LAPIC)
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

// encode adds what the vCPUs share.
func (s *Chips) encode(e *encoder) {
	for id, c := range s.Chips {
		e.add(tagIRQChip, id, c)
	}
	e.add(tagPIT, 0, s.PIT)
	e.add(tagClock, 0, s.Clock)
}

func (s *Chips) decode(sec section) (known bool, err error) {
	switch {
	case sec.tag == tagIRQChip && sec.index < chipCount:
		c := &s.Chips[sec.index]
		if err := decodeFixed(sec, c); err != nil {
			return true, err
		}
		if c.ID != sec.index {
			return true, badState("section %s %d is of controller %d", sec.tag, sec.index, c.ID)
		}
		return true, nil
	case sec.tag == tagPIT && sec.index == 0:
		return true, decodeFixed(sec, &s.PIT)
	case sec.tag == tagClock && sec.index == 0:
		return true, decodeFixed(sec, &s.Clock)
	}
	return false, nil
}

// decodeFixed reads a section of fixed layout.
func decodeFixed(s section, v any) error {
	n, err := binary.Decode(s.data, binary.LittleEndian, v)
	if err == nil && n != len(s.data) {
		err = errors.New("too long")
	}
	if err != nil {
		return badState("section %s %d of %d bytes: %v", s.tag, s.index, len(s.data), err)
	}
	return nil
}

// encodeFixed writes one.
func encodeFixed(tag string, index int, v any) (section, error) {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		return section{}, fmt.Errorf("state section %s: %w", tag, err)
	}
	return section{tag: tag, index: uint32(index), required: true, data: b}, nil
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

func sectionKey(tag string, index int) string { return fmt.Sprintf("%s %d", tag, index) }
