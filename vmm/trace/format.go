package trace

import (
	"fmt"
	"regexp"
	"strconv"
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

// Lines of a format file, such as "ID: 118" and "field:u64 gfn;	offset:8;	size:8;	signed:0;".
var (
	idLine    = regexp.MustCompile(`(?m)^ID:\s*(\d+)\s*$`)
	fieldLine = regexp.MustCompile(`(?m)^\s*field:[^;\n]*\b(\w+);\s*offset:(\d+);\s*size:([1248]);`)
)

// parseFormat reads a format file (Documentation/trace/events.rst, "Event formats").
func parseFormat(text string) (format, error) {
	var f format
	var err error
	if m := idLine.FindStringSubmatch(text); m != nil {
		f.id, err = strconv.ParseUint(m[1], 10, 32)
	}
	if err != nil || f.id == 0 {
		return f, fmt.Errorf("format of the tracepoint: it has no number")
	}
	fields := map[string]*field{"gfn": &f.gfn, "level": &f.level}
	for _, m := range fieldLine.FindAllStringSubmatch(text, -1) {
		offset, err := strconv.ParseUint(m[2], 10, 12) // no record is longer than 4096 bytes
		if at := fields[m[1]]; at != nil && err == nil {
			*at = field{int(offset), int(m[3][0] - '0')}
		}
	}
	for name, at := range fields {
		if at.size == 0 {
			return f, fmt.Errorf("format of the tracepoint: no integer field %q", name)
		}
	}
	return f, nil
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
