package guestmem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A snapshot of Firecracker is two files, named as the user liked: the memory, without any header, and the
// vmstate:
//
//	0        8  magic, little endian: 0x0710_1984_8664_0000 (x86_64), 0x0710_1984_AAAA_0000 (aarch64)
//	8        -  version and state of the machine, in one of the encodings below
//	size-8   8  CRC-64 (Jones) of all before it
//
//	1.7 to 1.14   bincode: the version is a string behind its length (8 bytes); behind it the size of the
//	              memory in MiB (8 bytes)
//	1.15 and on   bitcode: the version is a string behind its length (1 byte). This was inferred from the
//	              encoder's source. What follows can be read only with the types of that release
//	before 1.6    another encoding, of which only magic and CRC are read here
//
// The memory has the regions of the machine one behind the other. Where they lie depends on the release.
// A diff snapshot has a memory of the same size in which pages that did not change are holes.

const (
	fcMagicX86   = 0x0710_1984_8664_0000
	fcMagicARM   = 0x0710_1984_AAAA_0000
	fcMaxState   = 10_000_000 // the limit of Firecracker itself
	fcStateFile  = "vmstate"
	aFirecracker = "a snapshot of Firecracker"
	archX86      = "x86_64"
	archARM      = "aarch64"
)

// fcState is what a vmstate tells.
type fcState struct {
	arch     string
	encoding string // "bincode", "bitcode"; empty: not known
	version  string // of the snapshot's format, "8.0.0"; empty: not known
	memory   int64  // its size in bytes; 0: not told
}

// fcReleases are the releases of Firecracker that write a version of the format.
func fcReleases(major int) string {
	return map[int]string{1: "1.7", 2: "1.8", 3: "1.9 and 1.10", 5: "1.11", 6: "1.12", 8: "1.13 and 1.14",
		9: "1.15", 10: "1.16"}[major]
}

// major is the first number of the version; 0 if it is not known.
func (s fcState) major() int {
	text, _, _ := strings.Cut(s.version, ".")
	n, _ := strconv.Atoi(text)
	return n
}

// fcCRC is the CRC of Firecracker: Jones' polynomial, from 0, without the inversions of package crc64.
func fcCRC(b []byte) uint64 {
	return ^crc64.Update(^uint64(0), crc64.MakeTable(0x95AC9329AC4BC9B5), b)
}

// readVMState reads what can be read of a vmstate.
func readVMState(b []byte) (s fcState, err error) {
	if len(b) < 24 {
		return s, errCut
	}
	switch magic := binary.LittleEndian.Uint64(b); magic {
	case fcMagicX86:
		s.arch = archX86
	case fcMagicARM:
		s.arch = archARM
	default:
		return s, fmt.Errorf("it begins with %#x, which is the magic of no architecture", magic)
	}
	body := b[:len(b)-8]
	if got, want := fcCRC(body), binary.LittleEndian.Uint64(b[len(body):]); got != want {
		return s, fmt.Errorf("the checksum of its content is %#x, and %#x was written: it is damaged or was "+
			"cut short", got, want)
	}
	s.decode(body[8:])
	return s, nil
}

// decode finds the version, and what is known to stand behind it.
func (s *fcState) decode(b []byte) {
	version := regexp.MustCompile(`^[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}$`)
	if n := binary.LittleEndian.Uint64(b); n <= 32 && uint64(len(b)) >= 8+n && version.Match(b[8:8+n]) {
		s.encoding, s.version = "bincode", string(b[8:8+n])
		if rest := b[8+n:]; len(rest) >= 8 {
			if mib := binary.LittleEndian.Uint64(rest); mib > 0 && mib <= MaxSize>>20 {
				s.memory = int64(mib) << 20
			}
		}
		return
	}
	if n := int(b[0]); len(b) > n && version.Match(b[1:1+n]) {
		s.encoding, s.version = "bitcode", string(b[1:1+n])
	}
}

// regions says where the memory of a machine lies. It is nil where the release, which decides it, is not
// known.
func (s fcState) regions(size int64) []Region {
	const gib = 1 << 30
	type gap struct{ from, to uint64 } // where there is no memory
	var start uint64
	var gaps []gap
	switch major := s.major(); {
	case s.arch == archX86 && major == 0 && size > 3*gib:
		return nil
	case s.arch == archX86 && major <= 6 && major > 0:
		gaps = []gap{{0xD000_0000, 4 * gib}}
	case s.arch == archX86:
		gaps = []gap{{3 * gib, 4 * gib}, {256 * gib, 512 * gib}}
	case major == 0 && size > 254*gib:
		return nil
	default:
		start = 2 * gib
		if major > 6 {
			gaps = []gap{{256 * gib, 512 * gib}}
		}
	}
	var list []Region
	gpa, off, left := start, uint64(0), uint64(size)
	for _, g := range append(gaps, gap{from: 1 << 62}) {
		if n := min(left, g.from-gpa); n > 0 {
			list = append(list, Region{gpa, n, off})
			off, left = off+n, left-n
		}
		gpa = g.to
	}
	return list
}

// saw says what was recognised.
func (s fcState) saw(diff bool) string {
	what := aFirecracker
	if diff {
		what = "a diff snapshot of Firecracker"
	}
	switch releases := fcReleases(s.major()); {
	case s.version == "":
		return fmt.Sprintf("%s for %s, in a version that is not known", what, s.arch)
	case releases == "":
		return fmt.Sprintf("%s for %s, version %s, of a release that is not known", what, s.arch, s.version)
	default:
		return fmt.Sprintf("%s %s for %s (version %s)", what, releases, s.arch, s.version)
	}
}

// openFirecracker opens a pair of files.
func openFirecracker(statePath, memoryPath string, diff bool) (_ *Saved, err error) {
	state, err := readStateFile(statePath)
	if err != nil {
		return nil, &FormatError{Path: statePath, Format: "no vmstate of Firecracker", Why: "it cannot be read",
			Err: err, Do: "take the snapshot again"}
	}
	f, err := openFile(memoryPath)
	if err != nil {
		return nil, err
	}
	s := &Saved{Format: "firecracker", VMM: "firecracker", Path: memoryPath, Saw: state.saw(diff),
		Files: map[string]string{fcStateFile: statePath}, Regions: state.regions(f.size),
		Facts: Facts{"architecture": state.arch, "snapshot_version": state.version, "encoding": state.encoding,
			"firecracker": fcReleases(state.major())}}
	s.keep(f)
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if err := state.checkSize(memoryPath, f.size); err != nil {
		return nil, err
	}
	if diff {
		return s, s.openDiff(f)
	}
	m, err := newPieces(f, []piece{{0, 0, f.size}}, f.size)
	if err != nil {
		return nil, &FormatError{Path: memoryPath, Format: "no memory of Firecracker", Why: err.Error()}
	}
	s.Memory = m
	s.Warning, err = state.doubts(m)
	return s, err
}

// doubts says what could not be checked.
func (s fcState) doubts(m *pieceMemory) (string, error) {
	extents, err := m.Extents()
	if err != nil {
		return "", err
	}
	data := uint64(0)
	for _, r := range extents {
		data += r.Count
	}
	switch {
	case data < uint64(m.size)/PageSize:
		return "the memory file has holes, and Firecracker writes a full snapshot without: if it is a diff, " +
			"import it again with --parent, because pages that did not change are missing in it", nil
	case s.memory == 0:
		return "this vmstate does not tell how large the memory is, so that a memory file which was cut short is " +
			"not noticed", nil
	}
	return "", nil
}

// checkSize compares the memory with what the vmstate tells.
func (s fcState) checkSize(path string, size int64) error {
	e := &FormatError{Path: path, Format: "not the memory of this snapshot of Firecracker",
		Do: "give the memory file that was written together with the vmstate (--memory, --vmstate)"}
	switch {
	case size <= 0 || size%PageSize != 0 || size > MaxSize:
		e.Why = fmt.Sprintf("it has %d bytes, which no memory has", size)
	case s.memory > size:
		e.Why = fmt.Sprintf("it has %d bytes, and the vmstate says %d: it was cut short or is another one", size,
			s.memory)
	case s.memory > 0 && s.memory < size && s.major() < 8: // later ones may have memory that was plugged in
		e.Why = fmt.Sprintf("it has %d bytes, and the vmstate says %d", size, s.memory)
	default:
		return nil
	}
	return e
}

func readStateFile(path string) (s fcState, err error) {
	f, err := openFile(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	if f.size > fcMaxState {
		return s, fmt.Errorf("it has %d bytes, more than Firecracker reads", f.size)
	}
	b := make([]byte, f.size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return s, err
	}
	return readVMState(b)
}

// isVMState says whether a file has the magic of a vmstate.
func isVMState(path string) bool {
	f, err := openFile(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head, err := f.head()
	m := recognise(head)
	return err == nil && m != nil && m.kind == firecrackerState
}

// fcPair finds the two files of a snapshot among those of a directory. The vmstate is known by its content;
// the memory is the other file that has the size it tells, or that is named like one. Empty if there is no
// vmstate.
func fcPair(dir string, o Options) (state, memory string, err error) {
	files, err := regularFiles(dir)
	if err != nil {
		return "", "", err
	}
	state, memory = o.VMState, o.Memory
	for _, path := range files {
		if o.VMState != "" || path == memory || !isVMState(path) {
			continue
		}
		if state != "" {
			return "", "", &FormatError{Path: dir, Format: "a directory with several snapshots of Firecracker",
				Why: fmt.Sprintf("%s and %s are both vmstates", state, path), Do: "say which: --vmstate F --memory F"}
		}
		state = path
	}
	if state == "" || memory != "" {
		return state, memory, nil
	}
	memory, err = fcMemory(dir, state, files)
	return state, memory, err
}

// fcMemory finds the memory that belongs to a vmstate.
func fcMemory(dir, state string, files []string) (string, error) {
	told, err := readStateFile(state)
	if err != nil {
		return "", &FormatError{Path: state, Format: "a vmstate of Firecracker", Why: "it cannot be read", Err: err,
			Do: "take the snapshot again"}
	}
	var named, sized []string
	for _, path := range files {
		st, err := os.Stat(path)
		if err != nil || path == state || st.Size() == 0 || st.Size()%PageSize != 0 {
			continue
		}
		if strings.HasPrefix(strings.ToLower(filepath.Base(path)), "mem") {
			named = append(named, path)
		}
		if st.Size() == told.memory {
			sized = append(sized, path)
		}
	}
	for _, found := range [][]string{named, sized} {
		if len(found) == 1 {
			return found[0], nil
		}
	}
	return "", &FormatError{Path: dir, Format: aFirecracker,
		Why: fmt.Sprintf("which of its files is the memory that belongs to %s is not clear", filepath.Base(state)),
		Do:  "name it: --memory F"}
}

// regularFiles lists the regular files of a directory that are not hidden.
func regularFiles(dir string) (files []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && e.Name()[0] != '.' {
			files = append(files, path)
		}
	}
	return files, err
}

// openNamed opens a snapshot of which the user named a file, or both.
func openNamed(path string, o Options) (*Saved, error) {
	state, memory := o.VMState, o.Memory
	switch {
	case state == "":
		state = path
	case memory == "":
		memory = path
	}
	for _, p := range []*string{&state, &memory} {
		if st, err := os.Stat(*p); err != nil {
			return nil, err
		} else if !st.IsDir() {
			continue
		}
		foundState, foundMemory, err := fcPair(*p, o)
		if err != nil {
			return nil, err
		}
		if p == &state {
			state = foundState
		} else {
			memory = foundMemory
		}
	}
	if state == "" || memory == "" {
		return nil, &FormatError{Path: path, Format: "no snapshot of Firecracker",
			Why: "the vmstate or the memory is missing", Do: "name both: --vmstate F --memory F"}
	}
	return openFirecracker(state, memory, o.Diff)
}

// errSolid is the error for a diff without holes.
var errSolid = errors.New("it has no holes: it is a full memory, or its holes were filled when it was copied")
