package guestmem

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// An ELF core (ET_CORE) of a machine has its memory as segments of type PT_LOAD, whose physical addresses
// are those of the guest: QEMU's dump-guest-memory, "virsh dump --memory-only", kdump, VirtualBox. What a
// segment has more in memory than in the file is zero. A count of 0xffff segments (PN_XNUM) means that the
// real one is the field sh_info of the first section. The notes (PT_NOTE) have the registers of the
// processors.

const (
	anELFCore = "an ELF core"
	// pnXNum is PN_XNUM.
	pnXNum = 0xffff
	// maxSegments bounds what a header makes us read (56 bytes each).
	maxSegments = 1 << 21
	// maxNotes bounds the notes, in bytes.
	maxNotes = 64 << 20
	// notesFile is the name of the notes in a checkpoint.
	notesFile = "core-notes"
)

// elfCore is what the headers of a core tell.
type elfCore struct {
	machine elf.Machine
	image   *pieceMemory // without its file
	notes   []piece      // at is not used
	loads   int
}

// elfHead is the header of the file.
type elfHead struct {
	order          binary.ByteOrder
	wide           bool // 64 bits
	kind           elf.Type
	machine        elf.Machine
	phoff, shoff   uint64
	phentsize      uint16
	shentsize      uint16
	phnum          uint32
	minPhentsize   uint16
	minShentsize   uint16
	offsetOfSHInfo int
}

// readELFHead reads the header out of the first bytes.
func readELFHead(b []byte) (h elfHead, err error) {
	if len(b) < 64 {
		return h, errCut
	}
	h.order = binary.ByteOrder(binary.LittleEndian)
	if elf.Data(b[elf.EI_DATA]) == elf.ELFDATA2MSB {
		h.order = binary.BigEndian
	}
	h.wide = elf.Class(b[elf.EI_CLASS]) == elf.ELFCLASS64
	h.kind, h.machine = elf.Type(h.order.Uint16(b[16:])), elf.Machine(h.order.Uint16(b[18:]))
	sizes := b[42:]
	if h.wide {
		h.phoff, h.shoff = h.order.Uint64(b[32:]), h.order.Uint64(b[40:])
		h.minPhentsize, h.minShentsize, h.offsetOfSHInfo = 56, 64, 44
		sizes = b[54:]
	} else {
		h.phoff, h.shoff = uint64(h.order.Uint32(b[28:])), uint64(h.order.Uint32(b[32:]))
		h.minPhentsize, h.minShentsize, h.offsetOfSHInfo = 32, 40, 28
	}
	h.phentsize, h.phnum = h.order.Uint16(sizes), uint32(h.order.Uint16(sizes[2:]))
	h.shentsize = h.order.Uint16(sizes[4:])
	switch {
	case h.kind != elf.ET_CORE:
		return h, fmt.Errorf("it is no core but of type %v", h.kind)
	case h.phentsize < h.minPhentsize:
		return h, fmt.Errorf("its program headers have %d bytes", h.phentsize)
	}
	return h, nil
}

// end is how many bytes of the file its headers need.
func (h elfHead) end() uint64 {
	end := h.phoff + uint64(h.phnum)*uint64(h.phentsize)
	if h.phnum == pnXNum {
		end = max(h.phoff, h.shoff) + uint64(h.minShentsize)
	}
	return end
}

// readELF reads the headers of a core of so many bytes.
func readELF(r io.ReaderAt, size int64) (*elfCore, error) {
	first := make([]byte, 64)
	if _, err := r.ReadAt(first, 0); err != nil {
		return nil, errCut
	}
	h, err := readELFHead(first)
	if err != nil {
		return nil, err
	}
	count := uint64(h.phnum)
	if h.phnum == pnXNum {
		section := make([]byte, h.minShentsize)
		if h.shoff == 0 || h.shoff > math.MaxInt64/2 || h.shentsize < h.minShentsize {
			return nil, errors.New("it has 65,535 segments or more, and no section that tells how many")
		}
		if _, err := r.ReadAt(section, int64(h.shoff)); err != nil {
			return nil, fmt.Errorf("%w: the section that tells the number of segments is missing", errCut)
		}
		count = uint64(h.order.Uint32(section[h.offsetOfSHInfo:]))
	}
	if count == 0 || count > maxSegments || h.phoff > math.MaxInt64/2 {
		return nil, fmt.Errorf("it has %d segments, their headers at %d", count, h.phoff)
	}
	return h.segments(io.NewSectionReader(r, int64(h.phoff), int64(count)*int64(h.phentsize)), count, size)
}

// segment is one program header.
type segment struct {
	kind                         elf.ProgType
	offset, paddr, filesz, memsz uint64
}

func (h elfHead) segment(b []byte) segment {
	if h.wide {
		return segment{elf.ProgType(h.order.Uint32(b)), h.order.Uint64(b[8:]), h.order.Uint64(b[24:]),
			h.order.Uint64(b[32:]), h.order.Uint64(b[40:])}
	}
	u := func(off int) uint64 { return uint64(h.order.Uint32(b[off:])) }
	return segment{elf.ProgType(u(0)), u(4), u(12), u(16), u(20)}
}

// segments reads the program headers.
func (h elfHead) segments(r io.Reader, count uint64, size int64) (*elfCore, error) {
	c := &elfCore{machine: h.machine}
	var list []piece
	var end, notes uint64
	atZero := 0
	buffered := newStreamInput("", r)
	b := make([]byte, h.phentsize)
	for i := range count {
		if buffered.read(b); buffered.err != nil {
			return nil, fmt.Errorf("%w: program header %d of %d is missing", errCut, i, count)
		}
		s := h.segment(b)
		switch {
		case s.kind != elf.PT_LOAD && s.kind != elf.PT_NOTE || s.memsz|s.filesz == 0:
			continue
		case s.kind == elf.PT_NOTE:
			if notes += s.filesz; s.filesz > maxNotes || notes > maxNotes || s.offset > math.MaxInt64/2 {
				return nil, fmt.Errorf("segment %d has %d bytes of notes", i, s.filesz)
			}
			c.notes = append(c.notes, piece{0, int64(s.offset), int64(s.filesz)})
			continue
		}
		n := max(s.filesz, s.memsz)
		if s.paddr > MaxSize || n > MaxSize || s.paddr+n > MaxSize || s.offset > math.MaxInt64/2 {
			return nil, fmt.Errorf("segment %d has %d bytes at address %#x, offset %d", i, n, s.paddr, s.offset)
		}
		if c.loads++; s.paddr == 0 {
			atZero++
		}
		end = max(end, s.paddr+n)
		list = append(list, piece{int64(s.paddr), int64(s.offset), int64(s.filesz)})
	}
	switch {
	case c.loads == 0:
		return nil, errNothing
	case atZero == c.loads && c.loads > 1:
		return nil, errors.New("none of its segments has a physical address: it is the core of a process, " +
			"not of a machine")
	}
	var err error
	c.image, err = layPieces(list, roundUp(int64(end)), size)
	return c, err
}

// saw says what was recognised.
func (c *elfCore) saw() string {
	return fmt.Sprintf("an ELF core of a machine (%s) with %s of memory", elfArch(c.machine),
		counted(c.loads, "segment"))
}

// elfArch is the name of an architecture as Linux has it.
func elfArch(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "x86_64"
	case elf.EM_386:
		return "i386"
	case elf.EM_AARCH64:
		return "aarch64"
	case elf.EM_S390:
		return "s390x"
	case elf.EM_PPC64:
		return "ppc64"
	}
	return m.String()
}

// elfReading says why no VMM goes on from a core.
const elfReading = "no VMM goes on from a core, which has no state of the devices"

// saved is what is known of a core without its memory. The notes go into a file of their own.
func (c *elfCore) saved(path string) (*Saved, *os.File, error) {
	s := &Saved{Format: "elf-core", Path: path, Saw: c.saw(), Regions: c.image.regions(),
		Reading: elfReading, Facts: Facts{"architecture": elfArch(c.machine)}, Files: map[string]string{}}
	if len(c.notes) == 0 {
		return s, nil, nil
	}
	notes, err := memFile(notesFile)
	if err != nil {
		return nil, nil, err
	}
	s.keep(notes)
	s.Files[notesFile] = notes.Name()
	return s, notes, nil
}

func openELF(f *file) (*Saved, error) {
	c, err := readELF(f, f.size)
	if err != nil {
		return nil, coreError(f.path, err)
	}
	s, notes, err := c.saved(f.path)
	if err != nil {
		return nil, err
	}
	for _, p := range c.notes {
		if _, err := io.CopyN(notes, io.NewSectionReader(f, p.from, p.n), p.n); err != nil {
			return nil, errors.Join(coreError(f.path, fmt.Errorf("read its notes: %w", err)), s.Close())
		}
	}
	c.image.f = f
	s.Memory = c.image
	return s, nil
}

func coreError(path string, err error) error {
	e := &FormatError{Path: path, Format: anELFCore, Why: "it is not imported", Err: err, Do: onlyFileHint(err)}
	if errors.Is(err, errOverlap) {
		e.Do = "a dump of physical memory without overlaps is needed: makedumpfile -E, or QEMU's " +
			"dump-guest-memory without -p"
	}
	return e
}

// maxELFHeaders bounds the headers of a core that is a stream, which are kept in memory.
const maxELFHeaders = 128 << 20

// streamELF reads the headers of a core; its memory comes later.
func streamELF(in *input) (*Saved, error) {
	first := make([]byte, 64)
	in.read(first)
	h, err := readELFHead(first)
	if err == nil && h.end() > maxELFHeaders {
		err = fmt.Errorf("its headers end at byte %d, too far behind for a stream", h.end())
	}
	if in.err != nil {
		err = in.err
	}
	if err != nil {
		return nil, coreError(in.path, err)
	}
	head := bytes.NewBuffer(first)
	in.kept = head
	for uint64(head.Len()) < h.end() && in.err == nil {
		in.read(make([]byte, min(h.end()-uint64(head.Len()), 64<<10)))
	}
	in.kept = nil
	if in.err != nil {
		return nil, coreError(in.path, in.err)
	}
	c, err := readELF(bytes.NewReader(head.Bytes()), math.MaxInt64)
	if err != nil {
		return nil, coreError(in.path, err)
	}
	s, notes, err := c.saved(in.path)
	if err != nil {
		return nil, err
	}
	s.Stream = streamFunc(func(ctx context.Context, put func(uint64, []byte) error) (End, error) {
		if err := c.feed(in, notes, newFeeder(ctx, put)); err != nil {
			return End{}, coreError(in.path, err)
		}
		return End{Size: c.image.size}, nil
	})
	return s, nil
}

// feed gives the memory of a core in the order of the file.
func (c *elfCore) feed(in *input, notes io.Writer, to *feeder) error {
	parts := slices.Clone(c.image.list)
	for _, p := range c.notes {
		parts = append(parts, piece{-1, p.from, p.n})
	}
	slices.SortStableFunc(parts, func(a, b piece) int { return cmp.Compare(a.from, b.from) })
	for _, p := range parts {
		if p.from < in.off {
			return fmt.Errorf("its segments overlap in the file, or lie before its headers, %w", errOnlyFile)
		}
		in.skip(p.from - in.off)
		if p.at < 0 {
			text := make([]byte, p.n) // maxNotes bounds it
			if in.read(text); in.err == nil {
				_, err := notes.Write(text)
				in.fail(err)
			}
			continue
		}
		to.data(in, p.at, p.n)
	}
	in.fail(to.flush())
	return in.err
}
