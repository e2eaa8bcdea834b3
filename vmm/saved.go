package vmm

import (
	"encoding/json"
	"fmt"
)

// maxVCPUs is a limit for what a state file may claim.
const maxVCPUs = 255

// sections encodes a saved machine.
func (s *saved) sections() ([]section, error) {
	facts, err := json.Marshal(s.facts)
	if err != nil {
		return nil, err
	}
	ports, err := encodeFixed(tagPorts, 0, s.ports)
	if err != nil {
		return nil, err
	}
	list := []section{{tag: tagMachine, required: true, data: facts}, ports}
	for i := range s.vcpus {
		v, err := s.vcpus[i].sections(i)
		if err != nil {
			return nil, err
		}
		list = append(list, v...)
	}
	return list, nil
}

// decodeSaved is the inverse. It refuses what is missing, double, unknown but required, or
// senseless.
func decodeSaved(list []section) (saved, error) {
	var s saved
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
	s.vcpus = make([]vcpuState, s.facts.VCPUs)
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
	return s, s.complete(seen)
}

func sectionKey(tag string, index int) string { return fmt.Sprintf("%s %d", tag, index) }

func (s *saved) decode(sec section) (known bool, err error) {
	if sec.tag == tagPorts && sec.index == 0 {
		return true, decodeFixed(sec, &s.ports)
	}
	if sec.index >= uint32(len(s.vcpus)) {
		return false, nil
	}
	return s.vcpus[sec.index].decode(sec)
}

func (s *saved) complete(seen map[string]bool) error {
	if !seen[sectionKey(tagPorts, 0)] {
		return badState("section %s is missing", sectionKey(tagPorts, 0))
	}
	for i := range s.vcpus {
		for _, tag := range vcpuTags {
			if !seen[sectionKey(tag, i)] {
				return badState("section %s is missing", sectionKey(tag, i))
			}
		}
	}
	return nil
}
