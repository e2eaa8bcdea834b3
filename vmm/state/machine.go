package state

import (
	"encoding/json"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
)

// Machine is the state of a stopped machine, without its memory.
type Machine struct {
	Facts Facts
	Ports Ports // of a guest program
	VCPUs []VCPU
	Chips *Chips // nil: Facts.IRQChip is false

	Devices []device.Section // of a kernel
}

// sections encodes the machine's state.
func (s *Machine) sections() ([]section, error) {
	facts, err := json.Marshal(s.Facts)
	if err != nil {
		return nil, err
	}
	list := []section{{tag: tagMachine, required: true, data: facts}}
	for _, p := range s.parts() {
		sec, err := p.encode()
		if err != nil {
			return nil, err
		}
		list = append(list, sec)
	}
	return list, nil
}

// decodeMachine decodes the sections. It refuses missing, duplicate, and unknown required sections, and
// impossible values.
func decodeMachine(list []section) (Machine, error) {
	s, err := decodeFacts(list)
	if err != nil {
		return s, err
	}
	missing, known := make(map[string]any), make(map[string]bool)
	for _, p := range s.parts() {
		missing[p.key()], known[p.key()] = p.value, true
	}
	for _, sec := range list[1:] {
		key := sec.key()
		value, wanted := missing[key]
		switch {
		case wanted:
			if err := sec.decode(value); err != nil {
				return s, err
			}
			delete(missing, key)
		case known[key]:
			return s, badState("section %s is there twice", key)
		case sec.required:
			return s, badState("section %s is required, and this VMM does not know it", key)
		}
	}
	for key := range missing {
		return s, badState("section %s is missing", key)
	}
	return s, s.check()
}

// Encode returns the state file of a checkpoint and its ID. c describes a differential checkpoint; nil:
// the checkpoint has all of the memory.
func (s *Machine) Encode(c *Changed) (file []byte, id ID, err error) {
	sections, err := s.sections()
	if err != nil {
		return nil, id, err
	}
	// A state that cannot be read back must not become a checkpoint.
	if _, err := decodeMachine(sections); err != nil {
		return nil, id, err
	}
	id = identify(sections)
	if c != nil {
		sec, err := c.section()
		if err != nil {
			return nil, id, err
		}
		sections = append(sections, sec)
	}
	file, err = encodeFile(sections)
	return file, id, err
}

// decodeFacts reads section MACHINE and makes room for the parts that such a machine has.
func decodeFacts(list []section) (s Machine, err error) {
	if len(list) == 0 || list[0].tag != tagMachine {
		return s, badState("the first section is not %s", tagMachine)
	}
	if err := json.Unmarshal(list[0].data, &s.Facts); err != nil {
		return s, badState("section %s: %v", tagMachine, err)
	}
	if n := s.Facts.VCPUs; n < 1 || n > maxVCPUs {
		return s, badState("it has %d vCPUs, and 1 to %d are possible", n, maxVCPUs)
	}
	if err := ram.CheckLayout(s.Facts.Regions); err != nil {
		return s, badState("%v", err)
	}
	if s.Facts.Kernel() && !s.Facts.IRQChip || len(s.Facts.Disks) > MaxDisks ||
		!s.Facts.Kernel() && len(s.Facts.Disks) > 0 {
		return s, badState("guest %s with %d disks and interrupt controllers %v is not possible",
			s.Facts.Guest.Program, len(s.Facts.Disks), s.Facts.IRQChip)
	}
	s.VCPUs, s.Devices = make([]VCPU, s.Facts.VCPUs), s.Facts.devices()
	if s.Facts.IRQChip {
		s.Chips = new(Chips)
		for i := range s.VCPUs {
			s.VCPUs[i].LAPIC = new(kvm.LAPIC)
		}
	}
	return s, nil
}

// ReportWords is the length of a guest program's error report, in 32-bit words: gfn, offset, expected,
// found, version.
const ReportWords = 10

// Ports is the state of the device of a guest program (its section PORTS).
type Ports struct {
	Done     uint64 // units since the program was first started
	PeriodUS uint32
	Ready    uint8
	Words    uint8 // words of an error report received so far
	Pad      uint16
	Word     [ReportWords]uint32
}
