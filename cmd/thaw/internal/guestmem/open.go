package guestmem

import (
	"errors"
	"os"
	"strings"
)

// Options say what the user told of a path.
type Options struct {
	// VMState and Memory are the two files of a Firecracker snapshot, where their place or their names do
	// not tell which they are. Empty: not told.
	VMState, Memory string
}

// Open recognises the saved machine at path: by its content first, then by the names of files. Nil if it is
// a bare memory file or a checkpoint directory of thaw, which need no conversion. A *FormatError if path is
// of a format that cannot be imported, or is damaged.
func Open(path string, o Options) (*Saved, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return openDirectory(path, o)
	}
	if !st.Mode().IsRegular() {
		return nil, nil // the caller says what is wrong with it
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s, err := f.saved(o)
	if s == nil || err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.keep(f)
	return s, nil
}

// saved opens the format that the first bytes of a file tell.
func (f *file) saved(Options) (*Saved, error) {
	head, err := f.head()
	if err != nil {
		return nil, err
	}
	m := recognise(head)
	if m == nil {
		return nil, nil
	}
	switch m.kind {
	case elfFile:
		return openELF(f)
	case limeFile:
		return openLime(f)
	}
	return nil, m.refuse(f.path)
}

// refuse is the error for a format that is not read here.
func (m *magic) refuse(path string) *FormatError {
	e := &FormatError{Path: path, Format: m.format, Why: "it is not the memory of a machine byte for byte",
		Do: strings.ReplaceAll(m.do, "FILE", path)}
	if e.Do == "" {
		e.Do = "this program does not read it"
	}
	return e
}

// openDirectory recognises a directory by its files.
func openDirectory(dir string, _ Options) (*Saved, error) {
	return nil, refuseMemory(dir)
}

// refuseMemory is the error for a checkpoint directory whose file "memory" has the magic of another format.
// It is not converted: what lies in a directory like ours is what was saved, and page 0 is the guest's to
// write. An info.json shows that a VMM of thaw, or thaw itself, wrote the directory.
func refuseMemory(dir string) error {
	path := dir + "/memory"
	if _, err := os.Stat(dir + "/info.json"); err == nil {
		return nil
	}
	f, err := openFile(path)
	if err != nil {
		return nil // the caller says what is wrong with it
	}
	defer f.Close()
	head, err := f.head()
	if err != nil {
		return err
	}
	m := recognise(head)
	if m == nil {
		return nil
	}
	return &FormatError{Path: path, Format: m.format,
		Why: `a file "memory" in a directory has to be the memory of a machine byte for byte`,
		Do:  "import that file itself, which says more; with --raw it is taken as it is"}
}
