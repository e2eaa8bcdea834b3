package pagetable

import "encoding/binary"

// What the architecture says of entries in 64-bit mode (Intel SDM volume 3A, 4.5; AMD APM volume 2,
// 5.3). Software and protection-key bits, PWT, PCD, G, A, D, and NX say nothing about their form.
const (
	present     = 1 << 0
	large       = 1 << 7 // levels 2 and 3; reserved above; PAT in level 1
	addressMask = 0x000f_ffff_ffff_f000
	// What must be 0 in the entry of a large page below its address; bit 12 is its PAT.
	low2M = 0x001f_e000
	low1G = 0x3fff_e000
	// What changes in an entry without its meaning another thing: accessed, dirty, software's own.
	volatileBits = 1<<5 | 1<<6 | 7<<9 | 0x7ff<<52

	pageShift = 12
	pageSize  = 1 << pageShift
	entries   = 512
	upperHalf = entries / 2

	pages2M = 1 << 9
	pages1G = 1 << 18
)

// Kind is what an entry is.
type Kind int

// Kinds of entries.
const (
	Absent    Kind = iota // not present: the processor looks at nothing else of it
	Malformed             // has reserved bits set: using it would be a fault
	Directory             // points to a table of the level below
	Leaf                  // a page, or a large one
)

// NX is the bit of an entry that forbids to execute. Without EFER.NXE it is reserved.
const NX = 1 << 63

// Classify says what an entry in a table of a level (1 to 5) is, and which frames it is for. reserved
// are bits that must not be set beside those that never may: 0, or NX.
func Classify(entry uint64, level int, reserved uint64) (k Kind, frame, count uint64) {
	switch {
	case entry&present == 0:
		return Absent, 0, 0
	case entry&reserved != 0:
		return Malformed, 0, 0
	}
	frame = entry & addressMask >> pageShift
	switch {
	case level == 1:
		return Leaf, frame, 1
	case entry&large == 0:
		return Directory, frame, 1
	case level == 2 && entry&low2M == 0:
		return Leaf, frame &^ (pages2M - 1), pages2M
	case level == 3 && entry&low1G == 0:
		return Leaf, frame &^ (pages1G - 1), pages1G
	}
	return Malformed, 0, 0
}

// table is the 512 entries of one.
type table [pageSize]byte

func (t *table) entry(i int) uint64 { return binary.LittleEndian.Uint64(t[i*8:]) }

// addressOf is the virtual address of entry i in a table of a level that maps addresses from base
// on. Addresses of the upper half are sign-extended where the root has its levels.
func addressOf(base uint64, i, level, levels int) uint64 {
	a := base | uint64(i)<<(pageShift+9*(level-1))
	if level == levels && i >= upperHalf {
		a |= ^uint64(0) << (pageShift + 9*levels)
	}
	return a
}
