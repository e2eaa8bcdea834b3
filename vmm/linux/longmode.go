package linux

import "github.com/thawfs/thaw/wss/pagetable"

// Segment is a segment register with the descriptor that belongs to its selector.
type Segment struct {
	Selector uint16
	Base     uint64
	Limit    uint32 // in bytes
	Type     uint8  // four bits: code or data, readable, accessed; or the type of a system segment
	System   bool   // not code or data
	Long     bool   // 64-bit code
	Wide     bool   // 32-bit operands (D/B)
	Pages    bool   // the limit in the descriptor counts pages (G)
}

// Table is a descriptor table register.
type Table struct {
	Base  uint64
	Limit uint16 // last byte
}

// Selectors of the boot protocol, __BOOT_CS, __BOOT_DS and, in Linux, __BOOT_TSS.
const (
	selCode = 0x10
	selData = 0x18
	selTask = 0x20

	typeCode    = 0xb // execute, read, accessed
	typeData    = 0x3 // read, write, accessed
	typeBusyTSS = 0xb

	gdtSize  = selTask + 16 // a descriptor of a system segment has 16 bytes in long mode
	taskSize = 0x68         // the fixed part of a 64-bit task state segment
)

// Bits of control registers and flags.
const (
	cr0PE = 1 << 0 // protection
	cr0ET = 1 << 4 // always 1
	cr0NE = 1 << 5 // x87 errors are exceptions
	cr0PG = 1 << 31

	cr4PAE  = 1 << 5
	eferLME = 1 << 8  // long mode is wanted
	eferLMA = 1 << 10 // and is on

	rflagsFixed = 1 << 1 // the only one: interrupts are off
)

// longMode is 64-bit mode with flat segments and the identity map, at privilege level 0.
func longMode() Entry {
	return Entry{
		RFLAGS: rflagsFixed,
		CR0:    cr0PE | cr0ET | cr0NE | cr0PG,
		CR3:    tablesAddr,
		CR4:    cr4PAE,
		EFER:   eferLME | eferLMA,
		Code:   Segment{Selector: selCode, Limit: 0xffff_ffff, Type: typeCode, Long: true, Pages: true},
		Data:   Segment{Selector: selData, Limit: 0xffff_ffff, Type: typeData, Wide: true, Pages: true},
		Task: Segment{Selector: selTask, Base: taskAddr, Limit: taskSize - 1, Type: typeBusyTSS,
			System: true},
		GDT: Table{Base: gdtAddr, Limit: gdtSize - 1},
	}
}

// descriptors is the global descriptor table for the segments of an entry. The kernel reloads
// segment registers from it before it has a table of its own.
func (e Entry) descriptors() []byte {
	b := make([]byte, gdtSize)
	for _, s := range []Segment{e.Code, e.Data, e.Task} {
		le.PutUint64(b[s.Selector:], s.descriptor())
		if s.System {
			le.PutUint64(b[s.Selector+8:], s.Base>>32)
		}
	}
	return b
}

// descriptor packs a segment as the CPU reads it: limit and base in pieces, and the bits.
func (s Segment) descriptor() uint64 {
	limit := uint64(s.Limit)
	bit := func(set bool, n int) uint64 {
		if set {
			return 1 << n
		}
		return 0
	}
	if s.Pages {
		limit >>= 12
	}
	const present = 1 << 47
	return limit&0xffff | s.Base&0xff_ffff<<16 | uint64(s.Type)<<40 | bit(!s.System, 44) | present |
		limit>>16&0xf<<48 | bit(s.Long, 53) | bit(s.Wide, 54) | bit(s.Pages, 55) | s.Base>>24&0xff<<56
}

const largePage = 2 * mib

// identityMap is the page tables for the first 4 GiB in pages of 2 MiB: the root, one table of
// the next level, and a page directory for each GiB, side by side from tablesAddr on. The protocol
// wants kernel, zero page and command line mapped to themselves; with all of 4 GiB mapped it does
// not matter where they are.
func identityMap() []byte {
	const directories = mapped / gib
	b := make([]byte, (2+directories)*pageSize)
	const flags = pagetable.Present | pagetable.Writable
	le.PutUint64(b, tablesAddr+pageSize|flags)
	for i := range uint64(directories) {
		le.PutUint64(b[pageSize+i*8:], tablesAddr+(2+i)*pageSize|flags)
	}
	for i := range uint64(directories * pagetable.Entries) {
		le.PutUint64(b[2*pageSize+i*8:], i*largePage|flags|pagetable.Large)
	}
	return b
}
