package guestmem

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"os"
	"strings"
)

// A migration stream of QEMU, all numbers big endian:
//
//	"QEVM", version (4 bytes): 3
//	sections: their type (1 byte), and
//	  7  configuration: name of the machine behind its length (4), subsections
//	  1  start: id (4), name behind its length (1), instance (4), version (4), content
//	  2  part, 3 end: id (4), content
//	  4  full: as start
//	  126  footer: id (4)
//	  8  command: its number (2), length (2), that many bytes
//	  0  end of the stream; behind it, type 6: length (4), and a description of all in JSON
//
// The content of the section "ram" is records: address and flags (8 bytes), and
//
//	0x04  sizes: until their sum is the address: name of a block behind its length (1), its size (8);
//	      with x-ignore-shared an address (8); with mapped-ram a header (below)
//	0x02  page of zeros: name of the block behind its length, unless 0x20 (continue) says that it is
//	      that of the record before; a byte
//	0x08  page: name of the block, likewise; 4096 bytes
//	0x10  end of the content
//
// A machine that runs while it is saved sends pages again. With mapped-ram (QEMU 9.0) a page lies where its
// address says:
//
//	version (4): 1, size of a page (8), offset of the bitmap (8), offset of the pages (8)
//
// Behind the header comes the bitmap, bit i of byte n for page 8*n+i; pages whose bit is not set are zero and
// were not written. The sections of other devices come when that of the RAM has ended. Where each of them
// ends only the device knows; so they are taken as they are.

const (
	aQEMUStream = "a migration stream of QEMU"
	// stateFile is the name of what is left of a stream without the guest's memory.
	stateFile = "state"
	// maxStreamState bounds what is left, in bytes: the devices, and the memory of graphics cards.
	maxStreamState = 256 << 20
	// maxBlocks bounds the blocks of a machine.
	maxBlocks = 4096
)

// Types of sections.
const (
	secEOF         = 0x00
	secStart       = 0x01
	secPart        = 0x02
	secEnd         = 0x03
	secFull        = 0x04
	secSubsection  = 0x05
	secDescription = 0x06
	secConfig      = 0x07
	secCommand     = 0x08
	secFooter      = 0x7e
)

// Flags of a record in the section of the RAM.
const (
	ramZero     = 0x02
	ramSizes    = 0x04
	ramPage     = 0x08
	ramEnd      = 0x10
	ramContinue = 0x20
	ramXBZRLE   = 0x40
	ramCompress = 0x100
	ramMultiFD  = 0x200
)

// qemuBlock is a block of memory of the machine.
type qemuBlock struct {
	name   string
	size   int64
	memory bool  // it is of the guest's memory, at base in the image
	base   int64 // in bytes
}

// qemuParser goes through a stream. Its methods end early once in.err is set.
type qemuParser struct {
	in   *input
	sink sink

	// record is what was read since the last keep or drop; state is what was kept of the stream.
	record bytes.Buffer
	state  *os.File
	kept   int64

	machine      string
	ignoreShared bool
	mapped       bool
	blocks       []*qemuBlock
	size         int64 // of the image
	last         *qemuBlock
	ram          uint32 // id of the section
	started      bool
	pages        int64 // records of guest memory
	listOnly     bool  // it ends behind the list of blocks, and keeps nothing
}

func newQEMUParser(in *input, to sink, state *os.File) *qemuParser {
	return &qemuParser{in: in, sink: to, state: state}
}

// keep adds what was read to the state.
func (p *qemuParser) keep() {
	if p.record.Len() == 0 {
		return
	}
	if p.kept += int64(p.record.Len()); p.kept > maxStreamState {
		p.in.failf("it has more than %d MiB that are not the guest's memory", maxStreamState>>20)
	}
	if p.in.err == nil {
		_, err := p.state.Write(p.record.Bytes())
		p.in.fail(err)
	}
	p.record.Reset()
}

// run goes through the stream.
func (p *qemuParser) run() error {
	in := p.in
	in.kept = &p.record
	defer func() { in.kept = nil }()
	p.header()
	for in.err == nil && !p.section() {
		p.keep()
	}
	p.keep()
	p.rest()
	if in.err == nil && p.pages == 0 {
		in.fail(errNothing)
	}
	return in.err
}

// header reads what lies before the sections.
func (p *qemuParser) header() {
	in := p.in
	if magic := in.be32(); in.err == nil && magic != 0x5145564d {
		in.failf("it does not begin with the magic")
	}
	if v := in.be32(); in.err == nil && v != 3 {
		in.failf("it has version %d, and only 3 is known", v)
	}
}

// section reads a section; true if it was the end of the RAM.
func (p *qemuParser) section() (end bool) {
	in := p.in
	switch kind := in.u8(); kind {
	case secConfig:
		p.config()
	case secStart:
		p.start()
	case secPart, secEnd:
		if id := in.be32(); in.err == nil && (!p.started || id != p.ram) {
			in.failf("section %d goes on without a start", id)
		}
		p.records()
		return kind == secEnd
	case secFooter:
		if id := in.be32(); in.err == nil && id != p.ram {
			in.failf("a section ends with another one's number, %d", id)
		}
	case secCommand:
		number, n := in.be16(), in.be16()
		if number == 4 { // a package of postcopy
			in.failf("it was sent by postcopy")
		}
		in.read(make([]byte, n))
	case secFull:
		in.be32()
		in.failf("a device (%q) comes before the RAM", in.text(in.u8()))
	case secEOF:
		in.fail(errNothing)
	default:
		in.failf("a section of type %#x at byte %d", kind, in.off-1)
	}
	return false
}

// config reads the section of the configuration.
func (p *qemuParser) config() {
	in := p.in
	n := in.be32()
	if n > 255 {
		in.failf("the name of its machine has %d bytes", n)
		return
	}
	if p.machine = in.text(uint8(n)); !printable(p.machine) {
		in.failf("the name of its machine is %q", p.machine)
	}
	for in.err == nil {
		p.keep() // which bounds them: a compressed file may have any number
		next, err := in.r.Peek(1)
		if err != nil || next[0] != secSubsection {
			return
		}
		in.u8()
		name := in.text(in.u8())
		in.be32()
		switch name {
		case "configuration/target-page-bits":
			if bits := in.be32(); in.err == nil && bits != 12 {
				in.failf("its pages have %d bits, and only those of 4 KiB are read", bits)
			}
		case "configuration/capabilities":
			for range min(in.be32(), 1000) {
				switch in.text(in.u8()) {
				case "x-ignore-shared":
					p.ignoreShared = true
				case "mapped-ram":
					p.mapped = true
				}
			}
		case "configuration/uuid":
			in.read(make([]byte, 16))
		default:
			in.failf("its configuration has %q, which is not known", name)
		}
	}
}

// start reads the start of the section of the RAM.
func (p *qemuParser) start() {
	in := p.in
	id := in.be32()
	name := in.text(in.u8())
	in.be32()
	version := in.be32()
	switch {
	case in.err != nil:
	case name != "ram":
		in.failf("%q sends its state while the machine runs, which is not known here", name)
	case version != 4 || p.started:
		in.failf("its RAM has version %d", version)
	}
	p.ram, p.started = id, true
	p.records()
}

// records reads the content of the section of the RAM.
func (p *qemuParser) records() {
	in := p.in
	for in.err == nil {
		p.keep()
		word := in.be64()
		at, flags := int64(word&^0xfff), word&0xfff
		if word > MaxSize {
			in.failf("a record of its RAM is for %#x", word)
			return
		}
		switch flags &^ ramContinue {
		case ramEnd:
			p.keep()
			return
		case ramSizes:
			p.sizes(at)
			if p.listOnly {
				return
			}
		case ramZero, ramPage:
			p.page(at, flags)
		case ramXBZRLE:
			in.failf("its pages are compressed as differences (capability xbzrle): save without it")
		case ramCompress:
			in.failf("its pages are compressed (capability compress): save without it")
		case ramMultiFD:
			in.failf("its pages are in the packets of multifd: save without it")
		default:
			in.failf("a record of its RAM has flags %#x, at byte %d", flags, in.off-8)
		}
	}
}

// sizes reads the blocks of the machine, whose sizes have a sum.
func (p *qemuParser) sizes(sum int64) {
	in := p.in
	if p.blocks != nil {
		in.failf("the blocks of its RAM are listed twice")
	}
	for sum > 0 && in.err == nil {
		b := &qemuBlock{name: in.text(in.u8())}
		size := in.be64()
		b.size = int64(min(size, math.MaxInt64))
		switch {
		case in.err != nil:
			return
		case b.size == 0 || b.size > sum || b.size%PageSize != 0:
			in.failf("block %q of its RAM has %d bytes, of %d that are left", b.name, size, sum)
			return
		case !printable(b.name):
			in.failf("a block of its RAM has the name %q", b.name)
			return
		case len(p.blocks) == maxBlocks || p.block(b.name) != nil:
			in.failf("its RAM has %d blocks, or %q twice", len(p.blocks), b.name)
			return
		}
		if b.memory = isGuestMemory(b.name); b.memory {
			b.base, p.size = p.size, p.size+b.size
		}
		p.blocks = append(p.blocks, b)
		sum -= b.size
		if p.ignoreShared {
			in.be64()
		}
		if p.mapped {
			p.mappedBlock(b)
		}
	}
	if in.err == nil && p.size == 0 {
		in.failf("none of its blocks is the guest's memory")
	}
}

// printable says whether a name can be shown as it is: it comes from a file, and a terminal obeys what it is
// told.
func printable(name string) bool {
	return strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

func (p *qemuParser) block(name string) *qemuBlock {
	for _, b := range p.blocks {
		if b.name == name {
			return b
		}
	}
	return nil
}

// isGuestMemory says whether a block is the guest's memory, and not that of a device or firmware. The user
// names the blocks of memory, QEMU those of devices.
func isGuestMemory(name string) bool {
	for _, part := range []string{".rom", "vga", "vram", "bios", "flash", "qxl", "nvram", "acpi"} {
		if strings.Contains(name, part) {
			return false
		}
	}
	return !strings.HasPrefix(name, "/rom@") && !strings.HasPrefix(name, "0000:")
}

// page reads a record of a page.
func (p *qemuParser) page(at int64, flags uint64) {
	in := p.in
	b := p.last
	if flags&ramContinue == 0 {
		name := in.text(in.u8())
		if b = p.block(name); b == nil && in.err == nil {
			in.failf("a page is of block %q, which is not listed", name)
		}
		p.last = b
	}
	zero := flags&ramZero != 0
	if zero {
		if fill := in.u8(); fill != 0 && in.err == nil {
			in.failf("a page is filled with %#x", fill)
		}
	}
	switch {
	case in.err != nil:
	case b == nil:
		in.failf("a page is of no block")
	case at >= b.size || p.mapped:
		in.failf("a page at %#x of block %q, which has %d bytes", at, b.name, b.size)
	case !b.memory && zero: // kept as it is
	case !b.memory:
		in.read(make([]byte, PageSize))
	default:
		p.record.Reset() // the state does without it
		in.kept = nil
		p.pages++
		if zero {
			p.sink.zero(in, b.base+at, PageSize)
		} else {
			p.sink.data(in, b.base+at, PageSize)
		}
		in.kept = &p.record
	}
}

// rest keeps what follows the RAM, which has to be whole: the description comes last.
func (p *qemuParser) rest() {
	in := p.in
	in.kept = nil
	if in.err != nil {
		return
	}
	n, err := io.Copy(p.state, io.LimitReader(in.r, maxStreamState-p.kept+1))
	in.off += n
	in.fail(err)
	if p.kept += n; p.kept > maxStreamState {
		in.failf("it has more than %d MiB that are not the guest's memory", maxStreamState>>20)
	}
	if in.err != nil {
		return
	}
	tail := make([]byte, min(n, 16<<20))
	if _, err := p.state.ReadAt(tail, p.kept-int64(len(tail))); err != nil {
		in.fail(err)
	}
	if in.err == nil && !hasDescription(tail) {
		in.failf("%w: the description at its end is missing, which only a machine with suppress-vmdesc=on has not",
			errCut)
	}
}

// hasDescription says whether bytes end with the end of the stream and its description.
func hasDescription(b []byte) bool {
	for i := len(b) - 7; i > 0; i-- {
		if b[i] == secDescription && b[i-1] == secEOF && b[i+5] == '{' && b[len(b)-1] == '}' &&
			int(binary.BigEndian.Uint32(b[i+1:])) == len(b)-i-5 {
			return true
		}
	}
	return false
}
