package uffd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const mib = 1 << 20

func layoutOf(text string, image uint64) (*layout, error) {
	wire, err := parseRegions([]byte(text))
	if err != nil {
		return nil, err
	}
	return newLayout(wire, image)
}

// TestFirecrackersMessage: what Firecracker sends, in its versions.
func TestFirecrackersMessage(t *testing.T) {
	const low, high = 0x7f5a_4000_0000, 0x7f5a_0000_0000
	for _, fields := range []string{
		`"page_size":4096,"page_size_kib":4096`, `"page_size":4096`, `"page_size_kib":4096`, `"extra":[{"a":1}]`,
	} {
		text := fmt.Sprintf(`[{"base_host_virt_addr":%d,"size":%d,"offset":0,%s},
			{"base_host_virt_addr":%d,"size":%d,"offset":%d,%s}]`,
			low, 3*mib, fields, high, mib, 3*mib, fields)
		l, err := layoutOf(text, 4*mib)
		if err != nil {
			t.Errorf("%s: %v", fields, err)
			continue
		}
		if unit, ok := l.unit(low + 5000); unit != 1 || !ok || l.pageSize != 4096 || l.units() != 1024 {
			t.Errorf("%s: page %d, %v", fields, unit, ok)
		}
		if unit, ok := l.unit(high + mib - 1); unit != 1023 || !ok {
			t.Errorf("%s: page %d, %v", fields, unit, ok)
		}
		for _, address := range []uint64{0, high - 1, high + mib, low - 1, low + 3*mib, 1 << 63} {
			if unit, ok := l.unit(address); ok {
				t.Errorf("%#x is in page %d", address, unit)
			}
		}
		if at, run := l.place(1023); at != high+mib-4096 || run != 1 {
			t.Errorf("page 1023 is at %#x", at)
		}
		if at, run := l.place(0); at != low || run != 768 {
			t.Errorf("page 0 is at %#x, with %d", at, run)
		}
	}
	l, err := layoutOf(`[{"base_host_virt_addr":2097152,"size":4194304,"offset":0,"page_size":2097152}]`, 4*mib)
	if err != nil || l.units() != 2 {
		t.Errorf("pages of 2 MiB: %v", err)
	}
}

// TestMalformed: each is refused, with a word about what is wrong.
func TestMalformed(t *testing.T) {
	region := func(fields string) string {
		return `{"base_host_virt_addr":1048576,"size":1048576,"offset":0,"page_size":4096` + fields + `}`
	}
	for _, c := range [][2]string{
		{`[]`, "0 regions"},
		{`{}`, "no JSON array"},
		{`null`, "no JSON array"},
		{`"x"`, "no JSON array"},
		{`[1]`, "no JSON array"},
		{`[null]`, "missing"},
		{`[{}]`, "missing"},
		{`[}`, "no JSON array"},
		{`[{"size":-1}]`, "no JSON array"},
		{`[{"size":1.5}]`, "no JSON array"},
		{`[{"size":1e30}]`, "no JSON array"},
		{`[{"size":"1"}]`, "no JSON array"},
		{"[" + region("") + `] x`, "2 bytes follow"},
		{"[" + region("") + `][]`, "2 bytes follow"},
		{"[" + region(`,"page_size":8192`) + `]`, "pages of 8192 bytes"},
		{"[" + region(`,"page_size":0`) + `]`, "pages of 0 bytes"},
		{"[" + region(`,"page_size_kib":4`) + `]`, "must be equal"},
		{"[" + region(`,"page_size":2097152`) + `]`, "multiples of its pages"},
		{"[" + region(`,"base_host_virt_addr":0`) + `]`, "no memory of a process"},
		{"[" + region(`,"base_host_virt_addr":18446744073709547520`) + `]`, "no memory of a process"},
		{"[" + region(`,"size":18446744073709547520`) + `]`, "no memory of a process"},
		{"[" + region(`,"size":0`) + `]`, "empty"},
		{"[" + region(`,"size":1048577`) + `]`, "multiples"},
		{"[" + region(`,"base_host_virt_addr":1048577`) + `]`, "multiples"},
		{"[" + region(`,"offset":1`) + `]`, "multiples"},
		{"[" + region(`,"offset":18446744073709547520`) + `]`, "beyond the 1048576 bytes"},
		{"[" + region(`,"offset":4096`) + `]`, "beyond"},
		{"[" + region(`,"size":2097152`) + `]`, "beyond"},
		{"[" + region(`,"size":524288`) + `]`, "has 524288 bytes of memory"},
		{"[" + region("") + "," + region("") + `]`, "overlap in their offsets"},
		{
			"[" + region(`,"size":524288`) + "," + region(`,"size":524288,"offset":524288`) + `]`,
			"overlap in their addresses",
		},
		{"[" + region(`,"size":524288`) + "," + region(`,"page_size":2097152`) + `]`, "those of the others"},
		{"[" + strings.Repeat(region("")+",", maxRegions) + region("") + `]`, "257 regions"},
	} {
		text, want := c[0], c[1]
		if l, err := layoutOf(text, mib); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, %v; want %q", text, l, err, want)
		}
	}
	for _, text := range []string{"", " ", "[", `[{"size":1`, "[" + region("")} {
		if _, err := parseRegions([]byte(text)); !errors.Is(err, errIncomplete) {
			t.Errorf("%q: %v, and not incomplete", text, err)
		}
	}
}

// FuzzHandshake: whatever is sent, a layout that is accepted is the image, and each of its pages has one
// place.
func FuzzHandshake(f *testing.F) {
	for _, text := range []string{
		`[{"base_host_virt_addr":1048576,"size":1048576,"offset":0,"page_size":4096}]`,
		`[{"base_host_virt_addr":2097152,"size":4194304,"offset":0,"page_size_kib":2097152}]`,
		`[{"base_host_virt_addr":4096,"size":4096,"offset":4096},
			{"base_host_virt_addr":8192,"size":4096,"offset":0}]`,
	} {
		for _, image := range []uint64{8192, mib, 4 * mib} {
			f.Add([]byte(text), image)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, image uint64) {
		image %= 16 * mib
		l, err := layoutOf(string(text), image)
		if err != nil {
			return
		}
		if l.units()*l.pageSize != image {
			t.Fatalf("%d pages of %d bytes, the image has %d", l.units(), l.pageSize, image)
		}
		for unit := range l.units() {
			at, run := l.place(unit)
			if back, ok := l.unit(at + l.pageSize - 1); !ok || back != unit || run == 0 {
				t.Fatalf("page %d is at %#x, where page %d is", unit, at, back)
			}
		}
		for n := range text {
			if !json.Valid(text[:n]) {
				continue
			}
			if _, err := parseRegions(text[:n]); err == nil && len(strings.TrimSpace(string(text[n:]))) > 0 {
				t.Fatalf("the first %d bytes are a message of their own", n)
			}
		}
	})
}
