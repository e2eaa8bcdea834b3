package guestmem

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// coreOptions say how a test writes a core.
type coreOptions struct {
	narrow bool // 32 bits
	big    bool // big endian
	xnum   bool // the number of segments is in a section
	notes  []byte
	short  int64 // so many bytes at the end of each segment are not in the file
}

// writeCore writes an ELF core of a machine.
func writeCore(m *machine, o coreOptions) []byte {
	order, data := binary.ByteOrder(binary.LittleEndian), byte(elf.ELFDATA2LSB)
	if o.big {
		order, data = binary.BigEndian, byte(elf.ELFDATA2MSB)
	}
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), data, 1}
	phnum, ehsize, phentsize, shentsize := len(m.ranges)+1, 64, 56, 64
	if o.narrow {
		ident[elf.EI_CLASS], ehsize, phentsize, shentsize = byte(elf.ELFCLASS32), 52, 32, 40
	}
	shoff := ehsize + phnum*phentsize
	off := int64(shoff + shentsize)
	stored := uint16(phnum)
	if o.xnum {
		stored = pnXNum
	}
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, order, v) }
	if o.narrow {
		put(elf.Header32{Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(elf.EM_386), Version: 1,
			Phoff: uint32(ehsize), Shoff: uint32(shoff), Ehsize: uint16(ehsize), Phentsize: uint16(phentsize),
			Phnum: stored, Shentsize: uint16(shentsize), Shnum: 1})
	} else {
		put(elf.Header64{Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(elf.EM_X86_64), Version: 1,
			Phoff: uint64(ehsize), Shoff: uint64(shoff), Ehsize: uint16(ehsize), Phentsize: uint16(phentsize),
			Phnum: stored, Shentsize: uint16(shentsize), Shnum: 1})
	}
	segment := func(kind elf.ProgType, paddr, n, memsz int64) {
		if o.narrow {
			put(elf.Prog32{Type: uint32(kind), Off: uint32(off), Paddr: uint32(paddr), Filesz: uint32(n),
				Memsz: uint32(memsz)})
		} else {
			put(elf.Prog64{Type: uint32(kind), Off: uint64(off), Paddr: uint64(paddr), Filesz: uint64(n),
				Memsz: uint64(memsz)})
		}
		off += n
	}
	segment(elf.PT_NOTE, 0, int64(len(o.notes)), 0)
	for _, s := range m.ranges {
		segment(elf.PT_LOAD, s.at, s.n-o.short, s.n)
	}
	if o.narrow {
		put(elf.Section32{Info: uint32(phnum)})
	} else {
		put(elf.Section64{Info: uint32(phnum)})
	}
	b.Write(o.notes)
	for _, s := range m.ranges {
		b.Write(m.part(span{s.at, s.n - o.short}))
	}
	return b.Bytes()
}

func TestELF(t *testing.T) {
	for name, o := range map[string]coreOptions{
		"64 bits":       {notes: []byte("registers")},
		"32 bits":       {narrow: true},
		"big endian":    {big: true},
		"many segments": {xnum: true, notes: []byte("registers")},
		"32, many":      {narrow: true, xnum: true, big: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := small(1)
			s, stream := bothWays(t, writeCore(m, o), m.bytes)
			if s.Reading == "" || s.Format != "elf-core" {
				t.Errorf("%+v", s)
			}
			want := []Region{{0x1000, 0x9f000, 0x1000}, {0x100000, 0x150000, 0x100000},
				{0x300000, 0x100000, 0x300000}}
			if d := cmp.Diff(want, s.Regions); d != "" {
				t.Error(d)
			}
			if o.notes == nil {
				return
			}
			for _, s := range []*Saved{s, stream} {
				if got, err := os.ReadFile(s.Files[notesFile]); err != nil || !bytes.Equal(got, o.notes) {
					t.Errorf("the notes are %q, %v", got, err)
				}
			}
		})
	}
}

// TestELFZeros: what a segment has less in the file than in memory is zero.
func TestELFZeros(t *testing.T) {
	m := newMachine(2, 1<<20, span{0, 0x8000}, span{0x10000, 0xf0000})
	data := writeCore(m, coreOptions{short: 0x1800})
	for _, s := range m.ranges {
		clear(m.bytes[s.at+s.n-0x1800 : s.at+s.n])
	}
	bothWays(t, data, m.bytes)
}

// TestELFSameTwice: segments for virtual addresses mean the same bytes of the file several times.
func TestELFSameTwice(t *testing.T) {
	m := newMachine(3, 0x20000, span{0, 0x20000}, span{0x4000, 0x2000})
	data := writeCore(m, coreOptions{})
	order := binary.LittleEndian
	second := data[64+2*56:]
	order.PutUint64(second[8:], order.Uint64(data[64+56+8:])+0x4000)
	s := mustOpen(t, writeFile(t, "core", data), Options{})
	got, err := contents(s.Memory)
	sameImage(t, "twice", got, err, m.bytes)
}

func TestELFRefused(t *testing.T) {
	m := small(4)
	extended := func(b []byte) []byte {
		b[56], b[57] = 0xff, 0xff
		return b
	}
	u64 := binary.LittleEndian.PutUint64
	first := 64 + 56 // the first PT_LOAD
	for name, c := range map[string]struct {
		change func([]byte) []byte
		words  string
	}{
		"executable":     {func(b []byte) []byte { b[16] = byte(elf.ET_EXEC); return b }, "ET_EXEC"},
		"cut":            {func(b []byte) []byte { return b[:len(b)-1] }, "cut short"},
		"cut in headers": {func(b []byte) []byte { return b[:100] }, "cut short"},
		"cut in header":  {func(b []byte) []byte { return b[:40] }, "cut short"},
		"beyond 16 TiB":  {func(b []byte) []byte { u64(b[first+24:], MaxSize); return b }, "0x1000"},
		"wraps around":   {func(b []byte) []byte { u64(b[first+24:], 1<<64-0x1000); return b }, "segment 1"},
		"file size":      {func(b []byte) []byte { u64(b[first+32:], 1<<63); return b }, "segment 1"},
		"offset":         {func(b []byte) []byte { u64(b[first+8:], 1<<62); return b }, "segment 1"},
		"overlap":        {func(b []byte) []byte { u64(b[first+24:], 0xff000); return b }, "overlap"},
		"no memory":      {func(b []byte) []byte { b[56] = 1; return b }, "no memory"},
		"small headers":  {func(b []byte) []byte { b[54] = 8; return b }, "8 bytes"},
		"of a process": {func(b []byte) []byte {
			for i := range m.ranges {
				u64(b[first+56*i+24:], 0)
			}
			return b
		}, "process"},
		"many notes":   {func(b []byte) []byte { u64(b[64+32:], 1<<40); return b }, "notes"},
		"no section":   {func(b []byte) []byte { u64(b[40:], 0); return extended(b) }, "65,535"},
		"far section":  {func(b []byte) []byte { u64(b[40:], 1<<40); return extended(b) }, ""},
		"far headers":  {func(b []byte) []byte { u64(b[32:], 1<<62); return b }, ""},
		"wrong number": {func(b []byte) []byte { b[64+4*56+44+3] = 0x7f; return extended(b) }, "segments"},
	} {
		refusedBothWays(t, name, c.change(writeCore(m, coreOptions{})), c.words)
	}
}

func FuzzELF(f *testing.F) {
	m := newMachine(5, 0x5000, span{0x1000, 0xc00}, span{0x3000, 0x1800})
	for _, o := range []coreOptions{{}, {narrow: true}, {big: true, xnum: true},
		{notes: []byte("n"), short: 100}} {
		f.Add(writeCore(m, o))
	}
	f.Fuzz(agree)
}
