package vmm

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/device"
)

// maxVCPUs is a limit for what a state file may claim.
const maxVCPUs = 255

// saved is the state of a stopped machine but for its memory.
type saved struct {
	facts facts
	ports portState // of a guest program
	vcpus []vcpuState
	chips *chipState // nil: facts.IRQChip is false

	devices []device.Section // of a kernel
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
	// Devices were drained by the pause, and come before vCPUs and controllers: one that finishes a
	// request as it is drained raises an interrupt, which would be in the state of neither if the
	// controllers were saved already.
	if m.drained != nil {
		return saved{}, m.drained
	}
	var err error
	if s.devices, err = m.devices.States(); err != nil {
		return saved{}, err
	}
	s.ports = m.ports.snapshot()
	if err := m.chooseMSRs(); err != nil {
		return saved{}, err
	}
	for i, c := range m.vcpus {
		err := c.do(func() (err error) {
			s.vcpus[i], err = saveState(c.k, m.msrs, m.facts.IRQChip)
			return err
		})
		if err != nil {
			return saved{}, fmt.Errorf("save vCPU %d: %w", i, err)
		}
	}
	if m.facts.IRQChip {
		if s.chips, err = saveChips(m.vm); err != nil {
			return saved{}, err
		}
	}
	return s, nil
}

// chooseMSRs finds out, once, which registers are saved: when the vCPUs have the CPUID that they
// keep.
func (m *Machine) chooseMSRs() error {
	if m.msrs != nil {
		return nil
	}
	c := m.vcpus[0]
	return c.do(func() error { m.msrs = guestMSRs(m.known, c.k, m.facts.IRQChip); return nil })
}

// loadState sets the state of a new machine: vCPUs, then what they share, then the devices. Those
// assert their interrupt lines anew when the machine is resumed: KVM saves what the controllers have
// seen of a line, but not that a device holds it.
//
// forgive is asked about every [*HostError]; what it makes nil is left as it is on this host.
func (m *Machine) loadState(s saved, clock ClockMode, forgive func(error) error) error {
	first := m.vcpus[0]
	if err := first.do(func() error { return s.vcpus[0].partTSC(first.k) }); err != nil {
		return fmt.Errorf("restore vCPU 0: %w", err)
	}
	for i, c := range m.vcpus {
		if err := c.do(func() error { return s.vcpus[i].restore(c.k, forgive) }); err != nil {
			return fmt.Errorf("restore vCPU %d: %w", i, err)
		}
	}
	if s.chips != nil {
		if err := s.chips.restore(m.vm, clock); err != nil {
			return err
		}
	}
	if err := m.devices.Restore(s.devices); err != nil {
		return err
	}
	return m.ports.restore(s.ports)
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

// decodeFacts reads the first section and makes room for what follows from it.
func decodeFacts(list []section) (s saved, err error) {
	if len(list) == 0 || list[0].tag != tagMachine {
		return s, badState("the first section is not %s", tagMachine)
	}
	if err := json.Unmarshal(list[0].data, &s.facts); err != nil {
		return s, badState("section %s: %v", tagMachine, err)
	}
	if n := s.facts.VCPUs; n < 1 || n > maxVCPUs {
		return s, badState("%d vCPUs", n)
	}
	if err := checkRegions(s.facts.Regions); err != nil {
		return s, badState("%v", err)
	}
	if s.facts.kernel() && !s.facts.IRQChip || len(s.facts.Disks) > MaxDisks ||
		!s.facts.kernel() && len(s.facts.Disks) > 0 {
		return s, badState("guest %s with %d disks, interrupt controllers %v", s.facts.Guest.Program,
			len(s.facts.Disks), s.facts.IRQChip)
	}
	s.vcpus = make([]vcpuState, s.facts.VCPUs)
	if s.facts.IRQChip {
		s.chips = new(chipState)
	}
	return s, nil
}

func sectionKey(tag string, index int) string { return fmt.Sprintf("%s %d", tag, index) }

func (s *saved) decode(sec section) (known bool, err error) {
	if sec.tag == tagPorts && sec.index == 0 && !s.facts.kernel() {
		return true, decodeFixed(sec, &s.ports)
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
