package linux

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Values that a vmlinux does not have, because it has no setup header. They are those of bzImages of
// 64-bit kernels.
const (
	elfInitrdMax  = 0x7fff_ffff
	elfCmdlineMax = maxCmdline - 1
)

// parseELF reads the headers of a vmlinux: the kernel as the linker made it. Its segments are loaded at
// their physical addresses. The entry is a physical address too, unlike all other symbols.
func parseELF(file *io.SectionReader) (*kernel, error) {
	f, err := elf.NewFile(file)
	if err != nil {
		return nil, fmt.Errorf("its ELF headers are damaged or truncated: %w", err)
	}
	switch {
	case f.Class != elf.ELFCLASS64 || f.Machine == elf.EM_386:
		return nil, fmt.Errorf("it is a 32-bit ELF file for %v: these machines need a 64-bit kernel",
			f.Machine)
	case f.Data != elf.ELFDATA2LSB || f.Machine != elf.EM_X86_64:
		return nil, fmt.Errorf("it is an ELF file for %v: these machines are x86-64", f.Machine)
	case f.Type != elf.ET_EXEC:
		return nil, fmt.Errorf("it is an ELF file of type %v: a vmlinux is %v", f.Type, elf.ET_EXEC)
	}
	loads, err := segmentsOf(f, uint64(file.Size()))
	if err != nil {
		return nil, err
	}
	k := &kernel{file: file, setup: elfSetup(), initrdMax: elfInitrdMax, initrdHigh: true,
		cmdlineMax: elfCmdlineMax}
	first, last := loads[0], loads[len(loads)-1]
	k.memory = Range{Start: first.Paddr, Size: last.Paddr + last.Memsz - first.Paddr}
	for _, s := range loads {
		k.segments = append(k.segments, segment{offset: s.Off, size: s.Filesz, to: s.Paddr - first.Paddr})
	}
	if !slices.ContainsFunc(loads, func(s elf.ProgHeader) bool {
		return f.Entry >= s.Paddr && f.Entry-s.Paddr < s.Filesz
	}) {
		return nil, fmt.Errorf("its entry %#x is in none of its segments: it must be a physical address",
			f.Entry)
	}
	k.entry = f.Entry - first.Paddr
	return k, nil
}

// segmentsOf returns the PT_LOAD segments in the order of their addresses. It checks that there is at
// least one, that none overlap, and that all lie in the file and between 1 MiB and maxAddress.
func segmentsOf(f *elf.File, fileSize uint64) (loads []elf.ProgHeader, err error) {
	for _, p := range f.Progs {
		s := p.ProgHeader
		if s.Type != elf.PT_LOAD || s.Memsz == 0 {
			continue
		}
		if s.Filesz > s.Memsz || s.Off > fileSize || s.Filesz > fileSize-s.Off {
			return nil, fmt.Errorf("segment of %#x bytes at %#x of the file, for %#x bytes of memory: the "+
				"file has %#x bytes", s.Filesz, s.Off, s.Memsz, fileSize)
		}
		if s.Paddr < mib || s.Paddr > maxAddress || s.Memsz > maxAddress-s.Paddr {
			return nil, fmt.Errorf("segment of %#x bytes at physical address %#x: a kernel lies between "+
				"1 MiB and %#x", s.Memsz, s.Paddr, uint64(maxAddress))
		}
		loads = append(loads, s)
	}
	if len(loads) == 0 {
		return nil, errors.New("it has no segment to load")
	}
	slices.SortFunc(loads, func(a, b elf.ProgHeader) int { return cmp.Compare(a.Paddr, b.Paddr) })
	for i, s := range loads[1:] {
		if before := loads[i]; s.Paddr-before.Paddr < before.Memsz {
			return nil, fmt.Errorf("segments at %#x and %#x overlap", before.Paddr, s.Paddr)
		}
	}
	return loads, nil
}

// elfSetup returns a setup header for a kernel without one. It only marks the zero page as valid for
// the boot protocol.
func elfSetup() []byte {
	head := make([]byte, hdrInitSize+4)
	le.PutUint16(head[hdrBootFlag:], bootFlag)
	copy(head[hdrMagic:], "HdrS")
	le.PutUint16(head[hdrVersion:], version64)
	head[hdrLoadFlags] = loadedHigh
	le.PutUint32(head[hdrCmdlineSize:], elfCmdlineMax)
	return head[hdrStart:]
}
