package qemu

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/thawfs/thaw/wss/ramfile"
)

const pageSize = 4096

// ramLine is a line of a flat view: "0000000000100000-000000001fffffff (prio 0, ram): ram
// @0000000000100000". Memory that is read-only for the guest (rom) is RAM of the same backend that the
// firmware has locked.
var ramLine = regexp.MustCompile(
	`(?m)^ *([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:ram|rom)\): (\S+)(?: @([0-9a-f]{16}))?`)

// parsePlaces parses `info mtree -f`. It returns the parts of the memory block at address 0, which is
// the machine's RAM. Several flat views list the same parts.
func parsePlaces(text string, fileSize uint64) ([]ramfile.Place, error) {
	name := ""
	seen := make(map[ramfile.Place]bool)
	var places []ramfile.Place
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
		p := ramfile.Place{GPA: at[0], Size: at[1] + 1 - at[0], Offset: at[2]}
		if p.Size > fileSize || p.Offset > fileSize-p.Size {
			return nil, fmt.Errorf("%q has %#x bytes at %#x, the memory file only %#x: %w",
				name, p.Size, p.Offset, fileSize, ErrOtherMemory)
		}
		if !seen[p] {
			seen[p] = true
			places = append(places, p)
		}
	}
	return join(places)
}

// join sorts places, joins adjacent ones and drops parts that are not whole pages.
func join(places []ramfile.Place) ([]ramfile.Place, error) {
	slices.SortFunc(places, func(a, b ramfile.Place) int { return cmp.Compare(a.GPA, b.GPA) })
	var out []ramfile.Place
	for _, p := range places {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if p.GPA < last.GPA+last.Size {
				continue // the same part in another view
			}
			if p.GPA == last.GPA+last.Size && p.Offset == last.Offset+last.Size {
				last.Size += p.Size
				continue
			}
		}
		out = append(out, p)
	}
	out = slices.DeleteFunc(out, func(p ramfile.Place) bool {
		return p.GPA%pageSize != 0 || p.Size%pageSize != 0 || p.Offset%pageSize != 0
	})
	if len(out) == 0 {
		return nil, errors.New("none was found; the machine's RAM has to be one " +
			"memory-backend-file (-machine memory-backend=...)")
	}
	return out, nil
}
