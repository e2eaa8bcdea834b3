package pagetable

import "encoding/binary"

// Bits of entries in 64-bit mode (Intel SDM volume 3A, 4.5; AMD APM volume 2, 5.3). Software and
// protection-key bits, PWT, PCD, G, A, D, and NX may have any value in a well-formed entry.
const (
	Present     = 1 << 0
	Writable    = 1 << 1
	User        = 1 << 2
	Accessed    = 1 << 5
	Dirty       = 1 << 6
	Large       = 1 << 7 // levels 2 and 3; reserved above; PAT in level 1
	NX          = 1 << 63
	AddressMask = 0x000f_ffff_ffff_f000

	// Bits that must be 0 in the entry of a large page, below its address; bit 12 is its PAT.
	low2M = 0x001f_e000
	low1G = 0x3fff_e000
	// Bits that may change without changing the mapping: accessed, dirty, software's bits.
	volatileBits = Accessed | Dirty | 7<<9 | 0x7ff<<52

	PageShift = 12
	PageSize  = 1 << PageShift
	Entries   = 512 // number of entries of a table
	UpperHalf = Entries / 2
	MaxLevels = 5

	Pages2M = 1 << 9
	Pages1G = 1 << 18
)

// Kind is the kind of an entry.
type Kind int

// Kinds of entries.
const (
	Absent    Kind = iota // not present: the processor ignores the rest of it
	Malformed             // has reserved bits set: using it is a fault
	Directory             // points to a table of the level below
	Leaf                  // a page, or a large one
)

// Mode says how a processor reads its tables.
type Mode struct {
	Levels   int    // 4 or 5
	Reserved uint64 // further bits that must not be set in this mode: 0, or NX
}

// Bits of control registers that define the mode.
const (
	cr0Paging = 1 << 31
	cr4LA57   = 1 << 12
	eferLMA   = 1 << 10
	eferNXE   = 1 << 11
)

// ModeOf returns how a processor with these registers reads its tables, and the frame of its uppermost
// table, without the flags and the address space number in CR3. ok is false if it is not in 64-bit mode
// with paging.
func ModeOf(cr0, cr3, cr4, efer uint64) (m Mode, root uint64, ok bool) {
	if cr0&cr0Paging == 0 || efer&eferLMA == 0 {
		return Mode{}, 0, false
	}
	m.Levels = 4
	if cr4&cr4LA57 != 0 {
		m.Levels = 5
	}
	if efer&eferNXE == 0 {
		m.Reserved = NX
	}
	return m, cr3 & AddressMask >> PageShift, true
}

// Classify returns the kind of an entry in a table of a level (1 to 5), the first frame that it points
// to, and the number of frames.
func (m Mode) Classify(entry uint64, level int) (k Kind, frame, count uint64) {
	switch {
	case entry&Present == 0:
		return Absent, 0, 0
	case entry&m.Reserved != 0:
		return Malformed, 0, 0
	}
	frame = entry & AddressMask >> PageShift
	switch {
	case level == 1:
		return Leaf, frame, 1
	case entry&Large == 0:
		return Directory, frame, 1
	case level == 2 && entry&low2M == 0:
		return Leaf, frame &^ (Pages2M - 1), Pages2M
	case level == 3 && entry&low1G == 0:
		return Leaf, frame &^ (Pages1G - 1), Pages1G
	}
	return Malformed, 0, 0
}

// Table is a page table of 512 entries.
type Table [PageSize]byte

// Entry returns entry i.
func (t *Table) Entry(i int) uint64 { return binary.LittleEndian.Uint64(t[i*8:]) }

// SetEntry sets entry i.
func (t *Table) SetEntry(i int, v uint64) { binary.LittleEndian.PutUint64(t[i*8:], v) }

// slot returns the number of the entry for a virtual address in a table of a level.
func slot(virtual uint64, level int) int {
	return int(virtual >> (PageShift + 9*(level-1)) % Entries)
}

// addressOf returns the virtual address of entry i in a table of a level that maps addresses from base
// on. In a root, addresses of the upper half are sign-extended.
func addressOf(base uint64, i, level, levels int) uint64 {
	a := base | uint64(i)<<(PageShift+9*(level-1))
	if level == levels && i >= UpperHalf {
		a |= ^uint64(0) << (PageShift + 9*levels)
	}
	return a
}
