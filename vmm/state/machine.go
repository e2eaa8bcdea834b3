package state

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/ram"
)

// Machine is the state of a stopped machine but for its memory.
type Machine struct {
	Facts Facts
	Ports Ports // of a guest program
	VCPUs []VCPU
	Chips *Chips // nil: Facts.IRQChip is false

	Devices []device.Section // of a kernel
}

// sections encodes a saved machine.
func (s *Machine) sections() ([]section, error) {
	facts, err := json.Marshal(s.Facts)
	if err != nil {
		return nil, err
	}
	e := &encoder{list: []section{{tag: tagMachine, required: true, data: facts}}}
	if !s.Facts.Kernel() {
		e.add(tagPorts, 0, s.Ports)
	}
	for i := range s.VCPUs {
		s.VCPUs[i].encode(e, i)
	}
	if s.Chips != nil {
		s.Chips.encode(e)
	}
	for _, d := range s.Devices {
		e.list = append(e.list, section{tag: d.Tag, index: d.Index, required: true, data: d.Data})
	}
	return e.list, errors.Join(e.errs...)
}

// decodeMachine is the inverse. It refuses what is missing, double, unknown but required, or
// senseless.
func decodeMachine(list []section) (Machine, error) {
	s, err := decodeFacts(list)
	if err != nil {
		return s, err
	}
	seen := make(map[string]bool)
	for _, sec := range list[1:] {
		known, err := s.decode(sec)
		if err != nil {
			return s, err
		}
		key := sectionKey(sec.tag, int(sec.index))
		switch {
		case known && seen[key]:
			return s, badState("section %s comes twice", key)
		case !known && sec.required:
			return s, badState("section %s is required and this VMM does not know it", key)
		}
		seen[key] = true
	}
	for _, key := range s.keys() {
		if !seen[key] {
			return s, badState("section %s is missing", key)
		}
	}
	return s, nil
}

func (s *Machine) decode(sec section) (known bool, err error) {
	if sec.tag == tagPorts && sec.index == 0 && !s.Facts.Kernel() {
		return true, s.Ports.decode(sec)
	}
	if slices.Contains(s.Facts.deviceKeys(), sectionKey(sec.tag, int(sec.index))) {
		s.Devices = append(s.Devices, device.Section{Tag: sec.tag, Index: sec.index,
			Data: slices.Clone(sec.data)})
		return true, nil
	}
	if s.Chips != nil {
		if known, err := s.Chips.decode(sec); known || err != nil {
			return known, err
		}
	} else if sec.tag == tagLAPIC {
		return false, nil
	}
	if sec.index >= uint32(len(s.VCPUs)) {
		return false, nil
	}
	return s.VCPUs[sec.index].decode(sec)
}

// keys are the sections that a machine of these facts must have.
func (s *Machine) keys() []string {
	keys := s.Facts.deviceKeys()
	if !s.Facts.Kernel() {
		keys = append(keys, sectionKey(tagPorts, 0))
	}
	for i := range s.VCPUs {
		for _, tag := range vcpuTags(s.Facts.IRQChip) {
			keys = append(keys, sectionKey(tag, i))
		}
	}
	if s.Chips != nil {
		for id := range s.Chips.Chips {
			keys = append(keys, sectionKey(tagIRQChip, id))
		}
		keys = append(keys, sectionKey(tagPIT, 0), sectionKey(tagClock, 0))
	}
	return keys
}

// Encode makes the state file of a checkpoint and names it. c is what makes it a differential one;
// nil: it has all of the memory.
func (s *Machine) Encode(c *Changed) (file []byte, id ID, err error) {
	sections, err := s.sections()
	if err != nil {
		return nil, id, err
	}
	// What cannot be read back is not worth a checkpoint.
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

// decodeFacts reads the first section and makes room for what follows from it.
func decodeFacts(list []section) (s Machine, err error) {
	if len(list) == 0 || list[0].tag != tagMachine {
		return s, badState("the first section is not %s", tagMachine)
	}
	if err := json.Unmarshal(list[0].data, &s.Facts); err != nil {
		return s, badState("section %s: %v", tagMachine, err)
	}
	if n := s.Facts.VCPUs; n < 1 || n > maxVCPUs {
		return s, badState("%d vCPUs", n)
	}
	if err := ram.CheckLayout(s.Facts.Regions); err != nil {
		return s, badState("%v", err)
	}
	if s.Facts.Kernel() && !s.Facts.IRQChip || len(s.Facts.Disks) > MaxDisks ||
		!s.Facts.Kernel() && len(s.Facts.Disks) > 0 {
		return s, badState("guest %s with %d disks, interrupt controllers %v", s.Facts.Guest.Program,
			len(s.Facts.Disks), s.Facts.IRQChip)
	}
	s.VCPUs = make([]VCPU, s.Facts.VCPUs)
	if s.Facts.IRQChip {
		s.Chips = new(Chips)
	}
	return s, nil
}
