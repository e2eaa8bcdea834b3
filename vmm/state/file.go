package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The state file contains the state of a machine except its RAM. All integers are little-endian.
//
//	header, 32 bytes
//	  0  magic        8 bytes "thawvm\r\n"
//	  8  architecture u16: 62 (EM_X86_64)
//	 10  major        u16, 2
//	 12  minor        u16, 0
//	 14  sections     u16, their number
//	 16  length       u64, bytes of the whole file
//	 24  reserved     u32, 0
//	 28  CRC-32C      of the 28 bytes before
//	section, one after the other
//	  0  tag          8 bytes ASCII, padded with spaces
//	  8  index        u32, which vCPU or device of that kind
//	 12  flags        u32, bit 0: required
//	 16  length       u32, bytes of data
//	 20  CRC-32C      u32, of the 20 bytes before and of the data
//	 24  data
//
// The first section is MACHINE: the machine's properties, in JSON. The others are its state, mostly
// KVM's own structures (sections.go).
//
// # Versions
//
// A reader skips unknown optional sections. It refuses a file with an unknown required section.
//
//   - The layout of a section never changes: a new layout gets a new tag. A field of MACHINE never
//     changes its meaning.
//   - A new optional section, or a new field of MACHINE that a reader may ignore, is a new minor
//     version. Newer minor versions of a known major version are read.
//   - A new required section, a new field of MACHINE that a reader must not ignore, or the removal of a
//     section that readers need, is a new major version. A newer major version is refused, with both
//     numbers in the error. All older ones stay readable. A machine is always written in the newest
//     version.
//   - vmm/testdata has a checkpoint of every version that a release ever wrote. Tests restore and run
//     each of them. A sample is made by the code of its time and never changed.
//
// The versions so far:
//
//	1.0  one vCPU without interrupt controllers, for guest programs: MACHINE, PORTS, and of the vCPU
//	     MPSTATE REGS SREGS XSAVE XCRS DEBUGREG TSCKHZ CPUID2 MSRS EVENTS
//	2.0  several vCPUs; MACHINE has "irqchip", and with it there are LAPIC for each vCPU, IRQCHIP
//	     0 to 2, PIT2 and CLOCK. Without it a machine is as in 1.0. Many more MSRS: a reader sets
//	     those that it finds. The guest "linux" has no PORTS but devices: SERIAL, I8042, ACPIPWR,
//	     VMGENID, VIRTRNG, and a VIRTBLK for each of the "disks" of MACHINE, in that order.
//	     A differential checkpoint has CHANGED, required (changed.go).
const (
	stateMagic      = "thawvm\r\n"
	stateArch       = 62
	stateMajor      = 2
	stateMinor      = 0
	stateOldest     = 1 // major version
	stateHeaderSize = 32
	sectionSize     = 24

	flagRequired = 1

	// Limits that are checked before anything is decoded.
	maxStateSize   = 16 << 20
	maxSectionSize = 4 << 20
)

// fileHeader is the header of the file.
type fileHeader struct {
	Magic              [8]byte
	Arch, Major, Minor uint16
	Sections           uint16
	Length             uint64
	Reserved, Sum      uint32
}

// sectionHeader precedes the data of each section.
type sectionHeader struct {
	Tag          [8]byte
	Index, Flags uint32
	Length, Sum  uint32
}

// section is one part of the state.
type section struct {
	tag      string // up to 8 characters
	index    uint32
	required bool
	data     []byte
}

func (s section) key() string { return sectionKey(s.tag, s.index) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the checksum of a header, without its last four bytes, and of the data.
func checksum(header, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[:len(header)-4], castagnoli), castagnoli, data)
}

// seal encodes a header with its checksum, which is its last field.
func seal(header any, data []byte) ([]byte, error) {
	b, err := binary.Append(nil, binary.LittleEndian, header)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(b[len(b)-4:], checksum(b, data))
	return b, nil
}

// encodeFile makes the file.
func encodeFile(sections []section) ([]byte, error) {
	out := make([]byte, stateHeaderSize)
	for _, s := range sections {
		if len(s.tag) > 8 || len(s.data) > maxSectionSize {
			return nil, fmt.Errorf("state section %q of %d bytes", s.tag, len(s.data))
		}
		h := sectionHeader{Index: s.index, Length: uint32(len(s.data))}
		copy(h.Tag[:], fmt.Sprintf("%-8s", s.tag))
		if s.required {
			h.Flags = flagRequired
		}
		b, err := seal(h, s.data)
		if err != nil {
			return nil, err
		}
		out = append(append(out, b...), s.data...)
	}
	if len(out) > maxStateSize || len(sections) > 1<<16-1 {
		return nil, fmt.Errorf("state of %d bytes in %d sections is too large", len(out), len(sections))
	}
	head, err := seal(fileHeader{Magic: [8]byte([]byte(stateMagic)), Arch: stateArch, Major: stateMajor,
		Minor: stateMinor, Sections: uint16(len(sections)), Length: uint64(len(out))}, nil)
	copy(out, head)
	return out, err
}

// decodeFile splits a file into sections and verifies it. The sections alias b.
func decodeFile(b []byte) ([]section, error) {
	h, err := checkStateHeader(b)
	if err != nil {
		return nil, err
	}
	var sections []section
	rest := b[stateHeaderSize:]
	for i := range int(h.Sections) {
		s, sum, whole := cutSection(&rest)
		switch {
		case !whole:
			return nil, badState("section %d is truncated, or its length is wrong", i)
		case sum.stored != sum.right:
			return nil, badState("the checksum of section %d (%q) is wrong", i, s.tag)
		}
		sections = append(sections, s)
	}
	if len(rest) != 0 {
		return nil, badState("%d bytes after the last section", len(rest))
	}
	return sections, nil
}

// cutSection removes the first section from the rest of a file. whole is false if it is truncated.
func cutSection(rest *[]byte) (s section, sum struct{ stored, right uint32 }, whole bool) {
	var h sectionHeader
	n, err := binary.Decode(*rest, binary.LittleEndian, &h)
	if err != nil || h.Length > maxSectionSize || int(h.Length) > len(*rest)-n {
		return s, sum, false
	}
	head, data := (*rest)[:n], (*rest)[n:n+int(h.Length)]
	sum.stored, sum.right = h.Sum, checksum(head, data)
	*rest = (*rest)[n+len(data):]
	return section{tag: strings.TrimRight(string(h.Tag[:]), " "), index: h.Index,
		required: h.Flags&flagRequired != 0, data: data}, sum, true
}

func checkStateHeader(b []byte) (h fileHeader, err error) {
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return h, badState("%d bytes are too few for a state file", len(b))
	}
	switch {
	case string(h.Magic[:]) != stateMagic:
		return h, badState("not a state file of thaw's VMM (magic %q)", h.Magic[:])
	case h.Sum != checksum(b[:stateHeaderSize], nil):
		return h, badState("the checksum of the header is wrong")
	case h.Arch != stateArch:
		return h, badState("it was made for architecture %d, and this VMM needs %d (x86-64)", h.Arch, stateArch)
	case h.Major < stateOldest, h.Major > stateMajor:
		return h, badState("it has version %d.%d, and this VMM reads %d.x to %d.x", h.Major, h.Minor, stateOldest,
			stateMajor)
	case h.Length != uint64(len(b)):
		return h, badState("it has %d bytes, and must have %d by its header", len(b), h.Length)
	}
	return h, nil
}

// readFile reads and decodes a state file.
func readFile(path string) ([]section, error) {
	b, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	sections, err := decodeFile(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return sections, nil
}

// readLimited reads a file, but no more than maxStateSize.
func readLimited(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStateSize+1))
	if err == nil && len(b) > maxStateSize {
		err = badState("it has more than %d bytes", maxStateSize)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// openFile opens a regular file. It does not wait where path is a FIFO: a state file may name any path as
// that of its parent.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
