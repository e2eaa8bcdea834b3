package qemu

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

const pageSize = 4096

// place is a range of guest-physical memory and its offset in the memory file, in bytes.
type place struct{ gpa, size, offset uint64 }

// ramLine is a line of a flat view: "0000000000100000-000000001fffffff (prio 0, ram): ram
// @0000000000100000". Memory that is read-only for the guest (rom) is RAM of the same backend that the
// firmware has locked.
var ramLine = regexp.MustCompile(
	`(?m)^ *([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:ram|rom)\): (\S+)(?: @([0-9a-f]{16}))?`)

// parsePlaces parses `info mtree -f`. It returns the parts of the memory block at address 0, which is
// the machine's RAM. Several flat views list the same parts.
func parsePlaces(text string, fileSize uint64) ([]place, error) {
	name := ""
	seen := make(map[place]bool)
	var places []place
	for _, m := range ramLine.FindAllStringSubmatch(text, -1) {
		var at [3]uint64
		for i, s := range []string{m[1], m[2], m[4]} {
			if s == "" {
				continue // the offset is 0
			}
			v, err := strconv.ParseUint(s, 16, 64)
			if err != nil {
				return nil, err
			}
			at[i] = v
		}
		if name == "" && at[0] == 0 && at[2] == 0 {
			name = m[3]
		}
		if m[3] != name || at[1] < at[0] || at[1] == ^uint64(0) {
			continue
		}
		p := place{gpa: at[0], size: at[1] + 1 - at[0], offset: at[2]}
		if p.size > fileSize || p.offset > fileSize-p.size {
			return nil, fmt.Errorf("%q has %#x bytes at %#x, the memory file only %#x: %w",
				name, p.size, p.offset, fileSize, ErrOtherMemory)
		}
		if !seen[p] {
			seen[p] = true
			places = append(places, p)
		}
	}
	return join(places)
}

// join sorts places, joins adjacent ones and drops parts that are not whole pages.
func join(places []place) ([]place, error) {
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.gpa, b.gpa) })
	var out []place
	for _, p := range places {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if p.gpa < last.gpa+last.size {
				continue // the same part in another view
			}
			if p.gpa == last.gpa+last.size && p.offset == last.offset+last.size {
				last.size += p.size
				continue
			}
		}
		out = append(out, p)
	}
	out = slices.DeleteFunc(out, func(p place) bool {
		return p.gpa%pageSize != 0 || p.size%pageSize != 0 || p.offset%pageSize != 0
	})
	if len(out) == 0 {
		return nil, errors.New("none was found; the machine's RAM has to be one " +
			"memory-backend-file (-machine memory-backend=...)")
	}
	return out, nil
}

// find returns the offset of an address in the file, and the number of bytes of RAM from there on; n is
// 0 if the address is not RAM.
func find(places []place, gpa uint64) (offset, n uint64) {
	i, found := slices.BinarySearchFunc(places, gpa, func(p place, gpa uint64) int {
		return cmp.Compare(p.gpa, gpa)
	})
	if !found {
		i--
	}
	if i < 0 || gpa-places[i].gpa >= places[i].size {
		return 0, 0
	}
	in := gpa - places[i].gpa
	return places[i].offset + in, places[i].size - in
}
