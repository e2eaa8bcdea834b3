package linux

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"
)

// testELF is a vmlinux made here: text, data with zeros behind it, and a note.
type testELF struct {
	header elf.Header64
	progs  []elf.Prog64
	data   []byte // behind the program headers
}

const (
	elfText = 16 * mib
	elfData = 20 * mib
)

func sampleELF() testELF {
	e := testELF{
		header: elf.Header64{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
			Entry: elfText + 0x123, Phoff: 64, Ehsize: 64, Phentsize: 56,
		},
		progs: []elf.Prog64{
			{Type: uint32(elf.PT_LOAD), Off: 0x1000, Paddr: elfText, Vaddr: 0xffff_ffff_8100_0000,
				Filesz: 0x3000, Memsz: 0x3000},
			{Type: uint32(elf.PT_NOTE), Off: 0x1000, Paddr: 0, Filesz: 0x10, Memsz: 0x10},
			{Type: uint32(elf.PT_LOAD), Off: 0x4000, Paddr: elfData, Filesz: 0x1000, Memsz: 4 * mib},
			{Type: uint32(elf.PT_LOAD), Off: 0x5000, Paddr: 0, Filesz: 0, Memsz: 0},
		},
		data: bytes.Repeat([]byte{0xa5, 0x5a, 0x77}, 0x5000/3),
	}
	return e
}

func (e testELF) file() []byte {
	if e.header.Phnum == 0 {
		e.header.Phnum = uint16(len(e.progs))
	}
	b, err := binary.Append(nil, le, e.header)
	if err != nil {
		panic(err)
	}
	for _, p := range e.progs {
		if b, err = binary.Append(b, le, p); err != nil {
			panic(err)
		}
	}
	return append(b, e.data...)
}

func TestELF(t *testing.T) {
	file := sampleELF().file()
	initrd := []byte("initrd")
	m := newGuestMemory(ramOf(64 * mib))
	e, err := Load(m, Config{Kernel: reader(file), Initrd: reader(initrd), RAM: m.ram, RSDP: 0xe_0000})
	if err != nil {
		t.Fatal(err)
	}
	checkEntry(t, m, e)
	if e.Regs.RIP != elfText+0x123 || e.Kernel != (Range{elfText, elfData + 4*mib - elfText}) {
		t.Errorf("entry %#x, kernel %#x", e.Regs.RIP, e.Kernel)
	}
	if !bytes.Equal(m.read(elfText, 0x3000), file[0x1000:0x4000]) ||
		!bytes.Equal(m.read(elfData, 0x1000), file[0x4000:0x5000]) {
		t.Error("the kernel in memory is not that of the file")
	}
	if !bytes.Equal(m.read(elfData+0x1000, 0x2000), make([]byte, 0x2000)) {
		t.Error("memory behind the data was written")
	}
	if e.Initrd.End() != 64*mib-pageSize+uint64(len(initrd)) {
		t.Errorf("initrd at %#x", e.Initrd)
	}
	zero := m.read(e.Regs.RSI, zeroPageSize)
	if le.Uint16(zero[hdrBootFlag:]) != bootFlag || le.Uint32(zero[hdrCmdLinePtr:]) != cmdlineAddr ||
		le.Uint32(zero[hdrRamdiskImage:]) != uint32(e.Initrd.Start) {
		t.Errorf("setup header % x", zero[hdrStart:hdrEnd])
	}
}

func TestELFRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testELF)
		want   string
	}{
		{"half 32-bit", func(e *testELF) { e.header.Ident[4] = byte(elf.ELFCLASS32) }, "damaged"},
		{"i386", func(e *testELF) { e.header.Machine = uint16(elf.EM_386) }, "file for EM_386"},
		{"arm64", func(e *testELF) { e.header.Machine = uint16(elf.EM_AARCH64) }, "EM_AARCH64"},
		{"big-endian", func(e *testELF) { e.header.Ident[5] = byte(elf.ELFDATA2MSB) }, "damaged"},
		{"module", func(e *testELF) { e.header.Type = uint16(elf.ET_REL) }, "ET_REL"},
		{"no headers", func(e *testELF) { e.progs = nil }, "no segment"},
		{"many headers", func(e *testELF) { e.header.Phnum = 0xffff }, "truncated"},
		{"size of headers", func(e *testELF) { e.header.Phentsize = 55 }, "phentsize '55'"},
		{"headers outside", func(e *testELF) { e.header.Phoff = 1 << 40 }, "truncated"},
		{"headers wrap", func(e *testELF) { e.header.Phoff = ^uint64(0) - 100 }, "truncated"},
		{"nothing to load", func(e *testELF) { e.progs = e.progs[1:2] }, "no segment"},
		{"segment outside", func(e *testELF) { e.progs[0].Off = 0x6000 }, "the file has"},
		{"segment wraps", func(e *testELF) { e.progs[0].Off = ^uint64(0xfff) }, "damaged"},
		{"segment too long", func(e *testELF) { e.progs[2].Filesz = 0x2000 }, "the file has"},
		{"more file than memory", func(e *testELF) { e.progs[0].Memsz = 0x2fff }, "for 0x2fff bytes"},
		{"over boot data", func(e *testELF) { e.progs[0].Paddr = 0x7000 }, "between 1 MiB"},
		{"virtual", func(e *testELF) { e.progs[0].Paddr = 0xffff_ffff_8100_0000 }, "between 1 MiB"},
		{"memory wraps", func(e *testELF) { e.progs[2].Memsz = ^uint64(0) }, "between 1 MiB"},
		{"overlap", func(e *testELF) { e.progs[2].Paddr = elfText + 0x2fff }, "overlap"},
		{"entry outside", func(e *testELF) { e.header.Entry = elfText - 1 }, "in none of its segments"},
		{"entry virtual", func(e *testELF) { e.header.Entry = 0xffff_ffff_8100_0123 }, "a physical"},
		{"entry in zeros", func(e *testELF) { e.header.Entry = elfData + 0x1000 }, "in none of its"},
		{"memory too small", func(e *testELF) { e.progs[2].Memsz = 45 * mib }, "kernel needs 49 MiB"},
		{"in the hole", func(e *testELF) { e.progs[2].Paddr = 0xc000_0000 }, "--memory"},
	} {
		e := sampleELF()
		c.change(&e)
		m := newGuestMemory(ramOf(64 * mib))
		_, err := Load(m, Config{Kernel: reader(e.file()), RAM: m.ram})
		if err == nil || !strings.Contains(err.Error(), c.want) || m.writes > 0 {
			t.Errorf("%s: %v after %d writes, want %q before any", c.name, err, m.writes, c.want)
		}
	}
	small := elf.Header32{Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32),
		byte(elf.ELFDATA2LSB), 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: 1,
		Phentsize: 32, Shentsize: 40}
	file, err := binary.Append(nil, le, small)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseKernel(reader(file)); err == nil || !strings.Contains(err.Error(), "32-bit") {
		t.Errorf("a 32-bit kernel: %v", err)
	}
	short := sampleELF().file()[:63]
	if _, err := parseKernel(reader(short)); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("half a header: %v", err)
	}
}
