package vmm

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/device"
)

// saved is the state of a stopped machine but for its memory.
type saved struct {
	facts facts
	ports portState // of a guest program
	vcpus []vcpuState
	chips *chipState // nil: facts.IRQChip is false

	devices []device.Section // of a kernel
}

// sections encodes a saved machine.
func (s *saved) sections() ([]section, error) {
	facts, err := json.Marshal(s.facts)
	if err != nil {
		return nil, err
	}
	e := &encoder{list: []section{{tag: tagMachine, required: true, data: facts}}}
	if !s.facts.kernel() {
		e.add(tagPorts, 0, s.ports)
	}
	for i := range s.vcpus {
		s.vcpus[i].encode(e, i)
	}
	if s.chips != nil {
		s.chips.encode(e)
	}
	for _, d := range s.devices {
		e.list = append(e.list, section{tag: d.Tag, index: d.Index, required: true, data: d.Data})
	}
	return e.list, errors.Join(e.errs...)
}

// decodeSaved is the inverse. It refuses what is missing, double, unknown but required, or
// senseless.
func decodeSaved(list []section) (saved, error) {
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

func sectionKey(tag string, index int) string { return fmt.Sprintf("%s %d", tag, index) }

func (s *saved) decode(sec section) (known bool, err error) {
	if sec.tag == tagPorts && sec.index == 0 && !s.facts.kernel() {
		return true, s.ports.decode(sec)
	}
	if slices.Contains(s.facts.deviceKeys(), sectionKey(sec.tag, int(sec.index))) {
		s.devices = append(s.devices, device.Section{Tag: sec.tag, Index: sec.index,
			Data: slices.Clone(sec.data)})
		return true, nil
	}
	if s.chips != nil {
		if known, err := s.chips.decode(sec); known || err != nil {
			return known, err
		}
	} else if sec.tag == tagLAPIC {
		return false, nil
	}
	if sec.index >= uint32(len(s.vcpus)) {
		return false, nil
	}
	return s.vcpus[sec.index].decode(sec)
}

// keys are the sections that a machine of these facts must have.
func (s *saved) keys() []string {
	keys := s.facts.deviceKeys()
	if !s.facts.kernel() {
		keys = append(keys, sectionKey(tagPorts, 0))
	}
	for i := range s.vcpus {
		for _, tag := range vcpuTags(s.facts.IRQChip) {
			keys = append(keys, sectionKey(tag, i))
		}
	}
	if s.chips != nil {
		for id := range s.chips.Chips {
			keys = append(keys, sectionKey(tagIRQChip, id))
		}
		keys = append(keys, sectionKey(tagPIT, 0), sectionKey(tagClock, 0))
	}
	return keys
}

// encode makes the state file of a checkpoint and names it. c is what makes it a differential one;
// nil: it has all of the memory.
func (s *saved) encode(c *changed) (file []byte, id identity, err error) {
	sections, err := s.sections()
	if err != nil {
		return nil, id, err
	}
	// What cannot be read back is not worth a checkpoint.
	if _, err := decodeSaved(sections); err != nil {
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
	file, err = encodeState(sections)
	return file, id, err
}
