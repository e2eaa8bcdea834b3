package trace

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

// format is what of a tracepoint's `format` file matters: its number, and where its fields lie in a
// raw record.
type format struct {
	id    uint64
	gfn   field
	level field
}

// field is an unsigned integer in a raw record, little-endian.
type field struct{ offset, size int }

// maxRecord bounds what a format file may claim of a record, in bytes.
const maxRecord = 1 << 12

// parseFormat reads a format file (Documentation/trace/events.rst, "Event formats").
func parseFormat(text string) (format, error) {
	var f format
	fields := make(map[string]field)
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if v, ok := strings.CutPrefix(line, "ID:"); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32)
			if err != nil {
				return f, fmt.Errorf("format of the tracepoint: %q", line)
			}
			f.id = id
		}
		if decl, ok := strings.CutPrefix(line, "field:"); ok {
			name, at, err := parseField(decl)
			if err != nil {
				return f, fmt.Errorf("format of the tracepoint: %q: %w", line, err)
			}
			fields[name] = at
		}
	}
	if f.id == 0 {
		return f, fmt.Errorf("format of the tracepoint: it has no number")
	}
	for name, dst := range map[string]*field{"gfn": &f.gfn, "level": &f.level} {
		at, ok := fields[name]
		if !ok || at.size != 1 && at.size != 2 && at.size != 4 && at.size != 8 {
			return f, fmt.Errorf("format of the tracepoint: no integer field %q", name)
		}
		*dst = at
	}
	return f, nil
}

// parseField reads "u64 gfn;	offset:8;	size:8;	signed:0;".
func parseField(decl string) (name string, at field, err error) {
	parts := strings.Split(decl, ";")
	words := strings.Fields(parts[0])
	if len(words) == 0 {
		return "", at, fmt.Errorf("no name")
	}
	for _, p := range parts[1:] {
		key, value, _ := strings.Cut(strings.TrimSpace(p), ":")
		if key != "offset" && key != "size" {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > maxRecord {
			return "", at, fmt.Errorf("%s %q", key, value)
		}
		if key == "offset" {
			at.offset = n
		} else {
			at.size = n
		}
	}
	return words[len(words)-1], at, nil
}

// get reads the field. A record too short for it gives false.
func (f field) get(raw []byte) (v uint64, ok bool) {
	if f.offset+f.size > len(raw) {
		return 0, false
	}
	for i := range f.size {
		v |= uint64(raw[f.offset+i]) << (8 * i)
	}
	return v, true
}
