package guestmem

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// VMware saves the memory of a machine as NAME.vmem, which has no header, and the rest as NAME.vmss
// (suspended) or NAME.vmsn (a snapshot), little endian:
//
//	0   4  magic: 0xbed2bed0, 0xbad1bad1, 0xbed2bed2 or 0xbed3bed3; its last hexadecimal digit is the version
//	4   4  not known
//	8   4  number of groups; then for each: name (64 bytes), offset of its tags (8), not known (8)
//
// A tag is flags (1 byte), length of its name (1), the name, indices (4 bytes each; bits 6 and 7 of the flags
// say how many) and data. Bits 0 to 5 of the flags are the length of the data; 62 and 63 mean that it
// follows, twice, in 8 bytes (in 4 in version 0), behind it two bytes. A tag of two zero bytes is the last.
// In the group "memory" the tags regionsCount, regionPPN, regionPageNum and regionSize, indexed by the
// region, say in pages which part of guest-physical memory lies where in the .vmem. That is known from the
// readers of others, not from VMware.

const (
	aVMwareState = "a state file of VMware"
	// maxTags bounds what a state file makes us read.
	maxTags = 1 << 20
	// maxVMwareRegions bounds the regions.
	maxVMwareRegions = 1 << 12
)

// vmwareTags are the numbers in the group of the memory, by name and index.
type vmwareTags map[string]map[uint32]uint64

func (in *input) le32() uint32 {
	var b [4]byte
	in.read(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (in *input) le64() uint64 {
	var b [8]byte
	in.read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// readVMwareTags reads the group of the memory.
func readVMwareTags(ctx context.Context, f *file) (vmwareTags, error) {
	in := newInput(ctx, f, 0)
	version := in.le32() & 0xf
	in.le32()
	groups := in.le32()
	if groups > 1<<16 {
		return nil, fmt.Errorf("it has %d groups", groups)
	}
	at := uint64(0)
	for i := uint32(0); i < groups && in.err == nil; i++ {
		var name [64]byte
		in.read(name[:])
		offset := in.le64()
		in.le64()
		if string(bytes.TrimRight(name[:], "\x00")) == "memory" {
			at = offset
		}
	}
	switch {
	case in.err != nil:
		return nil, in.err
	case at == 0 || at >= uint64(f.size):
		return nil, fmt.Errorf("its group of the memory is at %d", at)
	}
	in = newInput(ctx, f, int64(at))
	tags := vmwareTags{}
	for range maxTags {
		if last := tags.read(in, version); last || in.err != nil {
			return tags, in.err
		}
	}
	return nil, errors.New("it has too many tags")
}

// read reads a tag; true if it was the last.
func (t vmwareTags) read(in *input, version uint32) (last bool) {
	flags, n := in.u8(), in.u8()
	if flags == 0 && n == 0 {
		return true
	}
	name := in.text(n)
	var index uint32
	indices := int(flags >> 6)
	for range indices {
		index = in.le32()
	}
	switch length := flags & 0x3f; length {
	case 62, 63:
		var size uint64
		if version == 0 {
			size = uint64(in.le32())
			in.le32()
		} else {
			size = in.le64()
			in.le64()
		}
		if size > MaxSize {
			in.failf("tag %q has %d bytes", name, size)
			return false
		}
		in.skip(int64(size) + 2)
	default:
		b := make([]byte, 64)
		in.read(b[:length])
		if indices <= 1 && length <= 8 {
			if t[name] == nil {
				t[name] = map[uint32]uint64{}
			}
			t[name][index] = binary.LittleEndian.Uint64(b)
		}
	}
	return false
}

// regions says where the memory lies in a .vmem of so many bytes; nil if it is one piece from address 0 on.
func (t vmwareTags) regions(size int64) (list []Region, err error) {
	count := t["regionsCount"][0]
	if count > maxVMwareRegions {
		return nil, fmt.Errorf("it has %d regions", count)
	}
	for i := range uint32(count) {
		gpa, ok1 := t["regionPPN"][i]
		off, ok2 := t["regionPageNum"][i]
		n, ok3 := t["regionSize"][i]
		pages := uint64(size) / PageSize
		switch {
		case !ok1 || !ok2 || !ok3:
			return nil, fmt.Errorf("region %d is not described", i)
		case n == 0 || gpa > 1<<40 || n > 1<<40 || off > pages || n > pages-off:
			return nil, fmt.Errorf("region %d has %d pages at page %d of a memory file of %d: it was cut short or "+
				"is another machine's", i, n, off, pages)
		}
		list = append(list, Region{gpa * PageSize, n * PageSize, off * PageSize})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].GPA < list[j].GPA })
	for i := 1; i < len(list); i++ {
		if list[i].GPA < list[i-1].GPA+list[i-1].Bytes {
			return nil, fmt.Errorf("%w: at %#x and %#x", errOverlap, list[i-1].GPA, list[i].GPA)
		}
	}
	return list, nil
}

// vmwarePair finds the two files that belong together, if path is one of them or a directory with them.
// Empty if it is not.
func vmwarePair(path string) (state, memory string) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		found, _ := filepath.Glob(filepath.Join(escapeGlob(path), "*.vmem"))
		if len(found) != 1 {
			return "", ""
		}
		path = found[0]
	}
	ext := filepath.Ext(path)
	stem := strings.TrimSuffix(path, ext)
	if ext != ".vmem" {
		return path, stem + ".vmem"
	}
	for _, ext := range []string{".vmss", ".vmsn"} {
		if st, err := os.Stat(stem + ext); err == nil && st.Mode().IsRegular() {
			return stem + ext, path
		}
	}
	return "", ""
}

// escapeGlob makes a pattern that matches a path.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func openVMware(ctx context.Context, statePath, memoryPath string) (_ *Saved, err error) {
	bad := &FormatError{Path: statePath, Format: aVMwareState}
	state, err := openFile(statePath)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	head, err := state.head()
	if err != nil {
		return nil, err
	}
	if m := recognise(head); m == nil || m.kind != vmwareState {
		bad.Format, bad.Why = "no state file of VMware", "it does not begin with the magic of one"
		return nil, bad
	}
	f, err := openFile(memoryPath)
	if err != nil {
		bad.Why, bad.Err = "its memory is in another file, which cannot be opened", err
		bad.Do = "put the .vmem beside it; if there is none, the memory is in this file, and VMware's " +
			"\"vmss2core\" makes a core of it"
		return nil, bad
	}
	s := &Saved{Format: "vmware", VMM: "vmware", Path: memoryPath,
		Files:   map[string]string{strings.TrimPrefix(filepath.Ext(statePath), "."): statePath},
		Reading: "that VMware goes on from a mount was never tried; \"thaw export\" gives its files back"}
	s.keep(f)
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	tags, err := readVMwareTags(ctx, state)
	if err == nil {
		s.Regions, err = tags.regions(f.size)
	}
	if err != nil {
		bad.Why, bad.Err = "where the memory lies cannot be read", err
		return nil, bad
	}
	m, err := newPieces(f, []piece{{0, 0, f.size}}, f.size)
	if err != nil {
		return nil, &FormatError{Path: memoryPath, Format: "no memory of VMware", Why: err.Error()}
	}
	s.Memory = m
	s.Saw = fmt.Sprintf("a memory of VMware with %s", counted(max(len(s.Regions), 1), "region"))
	return s, nil
}
