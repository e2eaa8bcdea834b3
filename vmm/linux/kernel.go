package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// kernel is a parsed kernel file of either format: segments of the file, the memory that they need, and
// the entry.
type kernel struct {
	file     *io.SectionReader
	setup    []byte    // setup header, from hdrStart on
	segments []segment // to be copied, relative to memory
	memory   Range     // the memory that it prefers; after place, the memory that it gets
	align    uint64    // it can also be loaded at higher multiples of this; 0: only at memory.Start
	entry    uint64    // relative to memory

	initrdMax  uint64 // highest address that an initrd may occupy below 4 GiB
	initrdHigh bool   // it may also lie above 4 GiB
	cmdlineMax int    // bytes, without the 0
}

// segment is a piece of a kernel's file.
type segment struct {
	offset uint64 // in the file
	size   uint64
	to     uint64 // relative to the start of the kernel's memory
}

var errNotKernel = errors.New("neither a bzImage nor an ELF vmlinux")

// parseKernel reads and checks a kernel's headers.
func parseKernel(file *io.SectionReader) (*kernel, error) {
	if file == nil {
		return nil, errors.New("none is given")
	}
	head, err := readHead(file, headerSize)
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return parseELF(file)
	case len(head) == headerSize && string(head[hdrMagic:hdrMagic+4]) == "HdrS":
		return parseBzImage(file, head)
	}
	return nil, foreign(head)
}

// foreign returns an error that says what kind of file it is, if it is not a kernel for these machines.
func foreign(head []byte) error {
	for _, f := range []struct {
		off         int
		magic, what string
	}{
		{0, "\x1f\x8b", "it is compressed with gzip: decompress it first (gunzip)"},
		{0, "\x28\xb5\x2f\xfd", "it is compressed with zstd: decompress it first (unzstd)"},
		{0, "\xfd7zXZ", "it is compressed with xz: decompress it first (unxz)"},
		{0, "BZh", "it is compressed with bzip2: decompress it first (bunzip2)"},
		{0, "\x02\x21\x4c\x18", "it is compressed with lz4: decompress it first (unlz4)"},
		{0x38, "ARM\x64", "it is an arm64 Image: these machines are x86-64"},
		{0x38, "RSC\x05", "it is a RISC-V Image: these machines are x86-64"},
		{0, "MZ", "it is an EFI program without a Linux setup header: give the bzImage in it"},
	} {
		if len(head) >= f.off+len(f.magic) && string(head[f.off:f.off+len(f.magic)]) == f.magic {
			return fmt.Errorf("%w: %s", errNotKernel, f.what)
		}
	}
	return errNotKernel
}

// readHead reads the first n bytes of a file, or all if it is shorter.
func readHead(r *io.SectionReader, n int) ([]byte, error) {
	b := make([]byte, min(r.Size(), int64(n)))
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, int64(len(b))), b); err != nil {
		return nil, fmt.Errorf("read its first %d bytes: %w", len(b), err)
	}
	return b, nil
}

// place finds memory for the kernel: at its preferred address or, if that is not all RAM and the kernel
// is relocatable, at the lowest possible address above.
func (k *kernel) place(m memoryMap) error {
	for _, r := range m.usable {
		start := max(r.Start, k.memory.Start)
		if k.align > 0 {
			start = alignUp(start, k.align)
		} else if start != k.memory.Start {
			continue
		}
		end := min(r.End(), mapped)
		if start <= end && k.memory.Size <= end-start {
			k.memory.Start = start
			return nil
		}
	}
	return fmt.Errorf("the kernel needs %d MiB of memory from %#x on to start, the machine has "+
		"%d MiB: give it more (--memory)", mibUp(k.memory.Size), k.memory.Start, mibUp(m.total))
}

// write copies the kernel's segments into guest memory.
func (k *kernel) write(mem io.WriterAt) error {
	for _, s := range k.segments {
		part := io.NewSectionReader(k.file, int64(s.offset), int64(s.size))
		if err := copyTo(mem, k.memory.Start+s.to, part); err != nil {
			return err
		}
	}
	return nil
}

// placeInitrd finds the highest address for an initrd: below the kernel's limit if it fits there,
// because every kernel can read it there, otherwise above 4 GiB.
func placeInitrd(file *io.SectionReader, k *kernel, m memoryMap) (Range, error) {
	if file == nil || file.Size() == 0 {
		return Range{}, nil
	}
	size := uint64(file.Size())
	if r, ok := m.highest(size, min(k.initrdMax+1, mapped), k.memory); ok {
		return r, nil
	}
	if k.initrdHigh {
		if r, ok := m.highest(size, maxAddress, k.memory); ok {
			return r, nil
		}
	}
	return Range{}, fmt.Errorf("the initrd of %d MiB does not fit beside the kernel, which needs "+
		"%d MiB at %#x; the machine has %d MiB: give it more (--memory)", mibUp(size),
		mibUp(k.memory.Size), k.memory.Start, mibUp(m.total))
}
