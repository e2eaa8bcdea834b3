package state

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
)

// The state file holds everything of a machine but its RAM. All integers are little-endian.
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
// The first section is MACHINE, JSON: what the machine is. The others are its state, mostly the
// kernel's own structures (sections.go).
//
// # Versions
//
// A reader skips optional sections that it does not know, and refuses the file for a required one.
//
//   - A section's data never changes its layout: a new layout is a new tag. In MACHINE a field is
//     never given another meaning.
//   - An optional section, or a field of MACHINE that a reader may overlook, is a new minor version.
//     A newer minor version of a known major one is read.
//   - A required section, a field of MACHINE that must not be overlooked, or the loss of a section
//     that readers ask for, is a new major version. A newer major version is refused, with both
//     numbers in the error; all older ones are read, for good. A machine is always written in the
//     newest.
//   - vmm/testdata has a checkpoint of every version that was ever written by a release. Tests read
//     each and let it go on. A sample is made by the code of its time and not changed afterwards.
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

	// Checked before anything is decoded.
	maxStateSize   = 16 << 20
	maxSectionSize = 4 << 20
)

// section is one part of the state.
type section struct {
	tag      string // up to 8 characters
	index    uint32
	required bool
	data     []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeFile makes the file.
func encodeFile(sections []section) ([]byte, error) {
	out := make([]byte, stateHeaderSize)
	for _, s := range sections {
		if len(s.tag) > 8 || len(s.data) > maxSectionSize {
			return nil, fmt.Errorf("state section %q of %d bytes", s.tag, len(s.data))
		}
		var h [sectionSize]byte
		copy(h[:], s.tag+strings.Repeat(" ", 8-len(s.tag)))
		binary.LittleEndian.PutUint32(h[8:], s.index)
		if s.required {
			binary.LittleEndian.PutUint32(h[12:], flagRequired)
		}
		binary.LittleEndian.PutUint32(h[16:], uint32(len(s.data)))
		sum := crc32.Update(crc32.Checksum(h[:20], castagnoli), castagnoli, s.data)
		binary.LittleEndian.PutUint32(h[20:], sum)
		out = append(append(out, h[:]...), s.data...)
	}
	if len(out) > maxStateSize || len(sections) > 1<<16-1 {
		return nil, fmt.Errorf("state of %d bytes in %d sections is too large", len(out), len(sections))
	}
	copy(out, stateMagic)
	binary.LittleEndian.PutUint16(out[8:], stateArch)
	binary.LittleEndian.PutUint16(out[10:], stateMajor)
	binary.LittleEndian.PutUint16(out[12:], stateMinor)
	binary.LittleEndian.PutUint16(out[14:], uint16(len(sections)))
	binary.LittleEndian.PutUint64(out[16:], uint64(len(out)))
	binary.LittleEndian.PutUint32(out[28:], crc32.Checksum(out[:28], castagnoli))
	return out, nil
}

// decodeFile takes a file apart and verifies it. The sections alias b.
func decodeFile(b []byte) ([]section, error) {
	count, err := checkStateHeader(b)
	if err != nil {
		return nil, err
	}
	var sections []section
	rest := b[stateHeaderSize:]
	for i := range count {
		if len(rest) < sectionSize {
			return nil, badState("section %d is cut off", i)
		}
		h := rest[:sectionSize]
		n := binary.LittleEndian.Uint32(h[16:])
		if n > maxSectionSize || uint64(n) > uint64(len(rest)-sectionSize) {
			return nil, badState("section %d claims %d bytes, %d are left", i, n, len(rest)-sectionSize)
		}
		data := rest[sectionSize : sectionSize+n]
		sum := crc32.Update(crc32.Checksum(h[:20], castagnoli), castagnoli, data)
		if sum != binary.LittleEndian.Uint32(h[20:]) {
			return nil, badState("checksum of section %d (%q) is wrong", i, h[:8])
		}
		sections = append(sections, section{
			tag:      strings.TrimRight(string(h[:8]), " "),
			index:    binary.LittleEndian.Uint32(h[8:]),
			required: binary.LittleEndian.Uint32(h[12:])&flagRequired != 0,
			data:     data,
		})
		rest = rest[sectionSize+n:]
	}
	if len(rest) != 0 {
		return nil, badState("%d bytes after the last section", len(rest))
	}
	return sections, nil
}

func checkStateHeader(b []byte) (sections int, err error) {
	switch {
	case len(b) < stateHeaderSize:
		return 0, badState("%d bytes are no state file", len(b))
	case string(b[:8]) != stateMagic:
		return 0, badState("not a state file of thaw's VMM (magic %q)", b[:8])
	case crc32.Checksum(b[:28], castagnoli) != binary.LittleEndian.Uint32(b[28:]):
		return 0, badState("checksum of the header is wrong")
	case binary.LittleEndian.Uint16(b[8:]) != stateArch:
		return 0, badState("made for architecture %d, this VMM runs %d (x86-64)",
			binary.LittleEndian.Uint16(b[8:]), stateArch)
	case binary.LittleEndian.Uint16(b[10:]) < stateOldest,
		binary.LittleEndian.Uint16(b[10:]) > stateMajor:
		return 0, badState("version %d.%d, this VMM reads %d.x to %d.x",
			binary.LittleEndian.Uint16(b[10:]), binary.LittleEndian.Uint16(b[12:]), stateOldest,
			stateMajor)
	case binary.LittleEndian.Uint64(b[16:]) != uint64(len(b)):
		return 0, badState("%d bytes long, the header says %d", len(b),
			binary.LittleEndian.Uint64(b[16:]))
	}
	return int(binary.LittleEndian.Uint16(b[14:])), nil
}

// readFile reads and takes apart a state file.
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

// readLimited reads a file that may claim any size.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStateSize+1))
	if err == nil && len(b) > maxStateSize {
		err = badState("more than %d bytes", maxStateSize)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}
