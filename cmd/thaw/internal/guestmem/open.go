package guestmem

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Options say what the user told of a path.
type Options struct {
	// VMState and Memory are the two files of a Firecracker snapshot, where their place or their names do
	// not tell which they are. Empty: not told.
	VMState, Memory string
	// Diff: the memory is a diff of Firecracker, with or without a vmstate. Its holes are as in its parent.
	Diff bool
}

// Open recognises the saved machine at path: by its content first, then by the names of files. Nil if it is
// a bare memory file or a checkpoint directory of thaw, which need no conversion. A *FormatError if path is
// of a format that cannot be imported, or is damaged.
func Open(ctx context.Context, path string, o Options) (*Saved, error) {
	if o.VMState != "" || o.Memory != "" {
		return openNamed(path, o)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return openDirectory(ctx, path, o)
	}
	if !st.Mode().IsRegular() {
		return nil, nil // the caller says what is wrong with it
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s, err := f.saved(ctx, o)
	if s == nil || err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.keep(f)
	return s, nil
}

// saved opens the format that the first bytes of a file tell.
func (f *file) saved(ctx context.Context, o Options) (*Saved, error) {
	head, err := f.head()
	if err != nil {
		return nil, err
	}
	m := recognise(head)
	if m == nil && !o.Diff && filepath.Ext(f.path) == ".vmem" {
		if state, memory := vmwarePair(f.path); state != "" {
			return openVMware(ctx, state, memory)
		}
	}
	if m == nil && o.Diff {
		s := &Saved{Format: "firecracker", VMM: "firecracker", Path: f.path, Saw: "a diff of Firecracker's memory",
			Reading: "there is no vmstate with it"}
		return s, s.openDiff(f)
	}
	if m == nil {
		return nil, nil
	}
	if o.Diff {
		return nil, &FormatError{Path: f.path, Format: m.format, Why: "only a diff of Firecracker has a parent",
			Do: "import it without --parent"}
	}
	switch m.kind {
	case firecrackerState:
		return nil, &FormatError{Path: f.path, Format: m.format, Why: "its memory is in another file",
			Do: "name it: --memory F; or give the directory that has both"}
	case vmwareState:
		state, memory := vmwarePair(f.path)
		return openVMware(ctx, state, memory)
	case elfFile:
		return openELF(f)
	case limeFile:
		return openLime(ctx, f)
	case qemuFile:
		return openQEMU(ctx, f, 0)
	case libvirtFile:
		return openLibvirt(newInput(ctx, f, 0), f)
	case gzipFile, xzFile, zstdFile, bzip2File, lzopFile:
		return inCompressed(newInput(ctx, f, 0), m, 1)
	}
	return nil, m.refuse(f.path, f.path)
}

// refuse is the error for a format that is not read here; file is what a command that helps is to be given.
func (m *magic) refuse(path, file string) *FormatError {
	return &FormatError{Path: path, Format: m.format, Why: "it is not the memory of a machine byte for byte",
		Do: strings.ReplaceAll(m.do, "FILE", file)}
}

// openDirectory recognises a directory by its files.
func openDirectory(ctx context.Context, dir string, o Options) (*Saved, error) {
	if isOurs(dir) {
		return nil, nil
	}
	s, err := openForeign(ctx, dir, o)
	set := filepath.Join(dir, setFile)
	if st, serr := os.Stat(set); s != nil && serr == nil && st.Mode().IsRegular() {
		s.Files[setFile] = set
	}
	return s, err
}

// setFile is the name of a working set, which belongs to any memory that it lies beside.
const setFile = "working-set"

// openForeign recognises a directory that another program wrote.
func openForeign(ctx context.Context, dir string, o Options) (*Saved, error) {
	if isCloudHypervisor(dir) && !o.Diff {
		return openCloudHypervisor(dir)
	}
	state, memory, err := fcPair(dir, o)
	if err != nil {
		return nil, err
	}
	if state != "" {
		return openFirecracker(state, memory, o.Diff)
	}
	if o.Diff {
		return nil, &FormatError{Path: dir, Format: "no snapshot of Firecracker", Why: "it has no vmstate",
			Do: "give the memory file of the diff itself, or import without --parent"}
	}
	if state, memory := vmwarePair(dir); state != "" {
		return openVMware(ctx, state, memory)
	}
	return nil, refuseMemory(dir)
}

// isOurs says whether a VMM of thaw, or thaw itself, wrote a checkpoint directory: by its info.json.
func isOurs(dir string) bool {
	for _, name := range []string{"memory", "info.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// refuseMemory is the error for a checkpoint directory whose file "memory" has the magic of another format.
// It is not converted: what lies in a directory like ours is what was saved, and page 0 is the guest's to
// write.
func refuseMemory(dir string) error {
	path := filepath.Join(dir, "memory")
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
