package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
)

// Inspection is the readable contents of a state file: every byte of every section is in some field. Of
// a damaged file it has what can still be read.
type Inspection struct {
	Path     string          `json:"path,omitempty"`
	Version  string          `json:"version"` // "2.0"
	Bytes    int             `json:"bytes"`
	Machine  json.RawMessage `json:"machine,omitempty"` // section MACHINE
	Sections []SectionInfo   `json:"sections"`
	Problems []string        `json:"problems,omitempty"` // empty: the file is valid and can be restored
}

// SectionInfo is one section of a state file.
type SectionInfo struct {
	Tag      string  `json:"tag"`
	Index    uint32  `json:"index"`
	Required bool    `json:"required"`
	Bytes    int     `json:"bytes"`
	Checksum string  `json:"checksum"` // CRC-32C, as stored in the file
	Damaged  bool    `json:"damaged,omitempty"`
	Fields   []Field `json:"fields"`
}

// Name returns the tag and the index.
func (s SectionInfo) Name() string { return sectionKey(s.Tag, s.Index) }

// Inspect reads the state file of a checkpoint directory. It fails only if the file cannot be read or
// is not a state file at all; any other fault is listed in Problems.
func Inspect(dir string) (*Inspection, error) {
	path := filepath.Join(dir, StateFile)
	b, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	if h, err := checkStateHeader(b); string(h.Magic[:]) != stateMagic {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	in := inspect(b)
	in.Path = path
	return in, nil
}

// inspect decodes the bytes of a file, which has at least a header.
func inspect(b []byte) *Inspection {
	h, _ := checkStateHeader(b) // decodeFile below reports its faults
	in := &Inspection{Bytes: len(b), Version: fmt.Sprintf("%d.%d", h.Major, h.Minor)}
	for rest := b[stateHeaderSize:]; ; {
		s, sum, whole := cutSection(&rest)
		if !whole {
			break // the length is damaged, or the rest is truncated
		}
		in.Sections = append(in.Sections, SectionInfo{Tag: s.tag, Index: s.index, Bytes: len(s.data),
			Required: s.required, Checksum: fmt.Sprintf("%08x", sum.stored), Fields: describe(s),
			Damaged: sum.stored != sum.right})
	}
	for i, s := range in.Sections {
		if s.Damaged {
			in.Problems = append(in.Problems, fmt.Sprintf("the checksum of section %d (%s) is wrong", i,
				s.Name()))
		}
		if s.Tag == tagMachine && len(s.Fields) > 0 && json.Valid([]byte(s.Fields[0].Value)) {
			in.Machine = json.RawMessage(s.Fields[0].Value)
		}
	}
	// The error that a restore would give.
	list, err := decodeFile(b)
	if err == nil {
		_, list, err = splitChanged(list)
	}
	if err == nil {
		_, err = decodeMachine(list)
	}
	var bad *FileError
	if errors.As(err, &bad) {
		in.Problems = append(in.Problems, "it cannot be restored: "+bad.What)
	}
	return in
}

// Change is a field in which two states differ. A value is empty if that state does not have the field.
type Change struct {
	Section string `json:"section"` // tag and index
	Field   string `json:"field"`
	A       string `json:"a"`
	B       string `json:"b"`
}

func (c Change) String() string {
	return fmt.Sprintf("%s %s: %s, %s", c.Section, c.Field, c.A, c.B)
}

// Diff compares two states field by field, in the order of the first. Fields that only the second
// has come last.
func Diff(a, b *Inspection) (changes []Change) {
	type key struct{ section, field string }
	left := make(map[key]string)
	for _, s := range b.Sections {
		for _, f := range s.Fields {
			left[key{s.Name(), f.Name}] = f.Value
		}
	}
	for _, s := range a.Sections {
		for _, f := range s.Fields {
			k := key{s.Name(), f.Name}
			v, has := left[k]
			if !has || v != f.Value {
				changes = append(changes, Change{s.Name(), f.Name, f.Value, v})
			}
			delete(left, k)
		}
	}
	for _, s := range b.Sections {
		for _, f := range s.Fields {
			if _, only := left[key{s.Name(), f.Name}]; only {
				changes = append(changes, Change{s.Name(), f.Name, "", f.Value})
			}
		}
	}
	return changes
}
