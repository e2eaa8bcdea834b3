package linux

import (
	"cmp"
	"debug/elf"
	"fmt"
	"io"
	"slices"
)

// Sizes and offsets of ELF-64 that are needed here. Package debug/elf reads whole files, and says
// that it is not for hostile ones; a kernel's file header and program headers are soon read.
const (
	elfHeaderSize = 64
	elfPhdrSize   = 56

	// maxSegments is far more than a kernel has, which is five or so.
	maxSegments = 64

	// elfInitrdMax is the limit for a vmlinux, which has no setup header to tell its own: what
	// bzImages of 64-bit kernels say.
	elfInitrdMax  = 0x7fff_ffff
	elfCmdlineMax = maxCmdline - 1
)

// parseELF reads the headers of a vmlinux: the kernel as the linker made it. Its segments go to
// their physical addresses; the entry is a physical address too, unlike all other symbols.
func parseELF(file *io.SectionReader, head []byte) (*kernel, error) {
	if len(head) < elfHeaderSize {
		return nil, fmt.Errorf("the file is cut off: an ELF header has %d bytes, this file %d",
			elfHeaderSize, len(head))
	}
	if err := checkELFHeader(head); err != nil {
		return nil, err
	}
	loads, err := readSegments(file, head)
	if err != nil {
		return nil, err
	}
	k := &kernel{file: file, setup: elfSetup(), initrdMax: elfInitrdMax, initrdHigh: true,
		cmdlineMax: elfCmdlineMax}
	first, last := loads[0], loads[len(loads)-1]
	k.memory = Range{Start: first.paddr, Size: last.paddr + last.memory - first.paddr}
	for _, s := range loads {
		k.segments = append(k.segments,
			segment{offset: s.offset, size: s.file, to: s.paddr - first.paddr})
	}
	entry := le.Uint64(head[24:])
	if !slices.ContainsFunc(loads, func(s elfSegment) bool {
		return entry >= s.paddr && entry-s.paddr < s.file
	}) {
		return nil, fmt.Errorf("entry %#x is in none of its segments: it must be a physical address",
			entry)
	}
	k.entry = entry - first.paddr
	return k, nil
}

func checkELFHeader(head []byte) error {
	machine := elf.Machine(le.Uint16(head[18:]))
	switch {
	case elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 || machine == elf.EM_386:
		return fmt.Errorf("it is a 32-bit ELF file for %v: these machines need a 64-bit kernel", machine)
	case elf.Data(head[elf.EI_DATA]) != elf.ELFDATA2LSB || machine != elf.EM_X86_64:
		return fmt.Errorf("it is an ELF file for %v: these machines are x86-64", machine)
	case elf.Type(le.Uint16(head[16:])) != elf.ET_EXEC:
		return fmt.Errorf("it is an ELF file of type %v: a vmlinux is %v",
			elf.Type(le.Uint16(head[16:])), elf.ET_EXEC)
	}
	return nil
}

// elfSegment is a program header of type PT_LOAD.
type elfSegment struct{ offset, file, paddr, memory uint64 }

// readSegments returns the PT_LOAD segments in the order of their addresses: there is one at least,
// none overlaps another, and all lie in the file and between 1 MiB and maxAddress.
func readSegments(file *io.SectionReader, head []byte) ([]elfSegment, error) {
	off, size := le.Uint64(head[32:]), le.Uint16(head[54:])
	count, total := uint64(le.Uint16(head[56:])), uint64(file.Size())
	if size != elfPhdrSize || count == 0 || count > maxSegments {
		return nil, fmt.Errorf("%d program headers of %d bytes: 1 to %d of %d bytes are possible", count,
			size, maxSegments, elfPhdrSize)
	}
	if off > total || count*elfPhdrSize > total-off {
		return nil, fmt.Errorf("the file is cut off: its program headers are at %#x, it has %#x bytes",
			off, total)
	}
	table := make([]byte, count*elfPhdrSize)
	if _, err := file.ReadAt(table, int64(off)); err != nil {
		return nil, fmt.Errorf("read program headers: %w", err)
	}
	var loads []elfSegment
	for h := range slices.Chunk(table, elfPhdrSize) {
		s := elfSegment{offset: le.Uint64(h[8:]), paddr: le.Uint64(h[24:]), file: le.Uint64(h[32:]),
			memory: le.Uint64(h[40:])}
		if elf.ProgType(le.Uint32(h)) != elf.PT_LOAD || s.memory == 0 {
			continue
		}
		if err := s.check(total); err != nil {
			return nil, err
		}
		loads = append(loads, s)
	}
	if len(loads) == 0 {
		return nil, fmt.Errorf("it has no segment to load")
	}
	slices.SortFunc(loads, func(a, b elfSegment) int { return cmp.Compare(a.paddr, b.paddr) })
	for i, s := range loads[1:] {
		if before := loads[i]; s.paddr-before.paddr < before.memory {
			return nil, fmt.Errorf("segments at %#x and %#x overlap", before.paddr, s.paddr)
		}
	}
	return loads, nil
}

func (s elfSegment) check(fileSize uint64) error {
	if s.file > s.memory || s.offset > fileSize || s.file > fileSize-s.offset {
		return fmt.Errorf("segment of %#x bytes at %#x of the file, for %#x bytes of memory: the file "+
			"has %#x bytes", s.file, s.offset, s.memory, fileSize)
	}
	if s.paddr < mib || s.paddr > maxAddress || s.memory > maxAddress-s.paddr {
		return fmt.Errorf("segment of %#x bytes at physical address %#x: a kernel lies between 1 MiB "+
			"and %#x", s.memory, s.paddr, uint64(maxAddress))
	}
	return nil
}

// elfSetup is the setup header for a kernel without one: it marks the zero page as one of the
// protocol, and says that there is nothing in it from older versions.
func elfSetup() []byte {
	head := make([]byte, hdrInitSize+4)
	le.PutUint16(head[hdrBootFlag:], bootFlag)
	copy(head[hdrMagic:], "HdrS")
	le.PutUint16(head[hdrVersion:], version64)
	head[hdrLoadFlags] = loadedHigh
	le.PutUint32(head[hdrCmdlineSize:], elfCmdlineMax)
	return head[hdrStart:]
}
