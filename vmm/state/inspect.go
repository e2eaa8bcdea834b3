package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
)

// Inspection is a state file laid open, for people and for comparison: every byte of every section
// is in some field. Of a damaged file it has what can still be told.
type Inspection struct {
	Path     string          `json:"path,omitempty"`
	Version  string          `json:"version"` // "2.0"
	Bytes    int             `json:"bytes"`
	Machine  json.RawMessage `json:"machine,omitempty"` // what it is: the section MACHINE
	Sections []SectionInfo   `json:"sections"`
	Problems []string        `json:"problems,omitempty"` // none: it is whole and can be restored
}

// SectionInfo is one section.
type SectionInfo struct {
	Tag      string  `json:"tag"`
	Index    uint32  `json:"index"`
	Required bool    `json:"required"`
	Bytes    int     `json:"bytes"`
	Checksum string  `json:"checksum"` // CRC-32C, as it is in the file
	Damaged  bool    `json:"damaged,omitempty"`
	Fields   []Field `json:"fields"`
}

// Name is tag and index.
func (s SectionInfo) Name() string { return sectionKey(s.Tag, s.Index) }

// Inspect reads the state file of a checkpoint directory. It fails only if there is no such file or
// nothing at all can be told of it; everything else that is wrong is among the Problems.
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

// inspect lays the bytes of a file open. They are at least a header.
func inspect(b []byte) *Inspection {
	h, _ := checkStateHeader(b) // what is wrong with it is said in the end
	in := &Inspection{Bytes: len(b), Version: fmt.Sprintf("%d.%d", h.Major, h.Minor)}
	for rest := b[stateHeaderSize:]; ; {
		s, sum, whole := cutSection(&rest)
		if !whole {
			break // the length is damaged, or what follows is cut off
		}
		in.Sections = append(in.Sections, SectionInfo{Tag: s.tag, Index: s.index, Bytes: len(s.data),
			Required: s.required, Checksum: fmt.Sprintf("%08x", sum.stored), Fields: describe(s),
			Damaged: sum.stored != sum.right})
	}
	for i, s := range in.Sections {
		if s.Damaged {
			in.Problems = append(in.Problems, fmt.Sprintf("checksum of section %d (%s) is wrong", i,
				s.Name()))
		}
		if s.Tag == tagMachine && len(s.Fields) > 0 && json.Valid([]byte(s.Fields[0].Value)) {
			in.Machine = json.RawMessage(s.Fields[0].Value)
		}
	}
	// What a restore would say.
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

// Change is a field in which two states differ. A value is empty where there is no such field.
type Change struct {
	Section string `json:"section"` // tag and index
	Field   string `json:"field"`
	A       string `json:"a"`
	B       string `json:"b"`
}

func (c Change) String() string {
	return fmt.Sprintf("%s %s: %s, %s", c.Section, c.Field, c.A, c.B)
}

// Diff compares two states field by field, in the order of the first; then comes what only the
// second has.
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
