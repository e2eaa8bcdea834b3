package scan

import "encoding/binary"

// What the architecture says of page tables in 64-bit mode (Intel SDM volume 3A, 4.5; AMD APM
// volume 2, 5.3). Software and protection-key bits (52 to 62), PWT, PCD, G and, where no large page
// is, PAT say nothing about the form of an entry.
const (
	ptePresent  = 1 << 0
	pteUser     = 1 << 2
	pteAccessed = 1 << 5
	pteDirty    = 1 << 6
	pteLarge    = 1 << 7  // levels 2 and 3; reserved above; PAT in level 1
	pteNX       = 1 << 63 // reserved without EFER.NXE
	pteAddress  = 0x000f_ffff_ffff_f000

	// What must be 0 below the address of a large page, whose bit 12 is PAT.
	pteLow2M = 0x001f_e000
	pteLow1G = 0x3fff_e000

	cr0Paging  = 1 << 31
	cr4PAE     = 1 << 5
	cr4LA57    = 1 << 12
	eferLMA    = 1 << 10
	eferNXE    = 1 << 11
	entries    = 512
	tableBytes = 4096
	frameShift = 12

	levelPT, levelPD, levelPDPT, levelPML4, levelPML5 = 1, 2, 3, 4, 5
)

// mode is how a vCPU reads its tables.
type mode struct {
	levels int // 4 or 5
	nx     bool
}

// mode of a vCPU; false: not one of 64-bit mode with paging.
func (c CPU) mode() (mode, bool) {
	if c.CR0&cr0Paging == 0 || c.CR4&cr4PAE == 0 || c.EFER&eferLMA == 0 {
		return mode{}, false
	}
	m := mode{levels: levelPML4, nx: c.EFER&eferNXE != 0}
	if c.CR4&cr4LA57 != 0 {
		m.levels = levelPML5
	}
	return m, true
}

// root is the frame of the vCPU's uppermost table: CR3 without PCID or cache bits below the
// address, and without what LAM has above.
func (c CPU) root() uint64 { return c.CR3 & pteAddress >> frameShift }

// kind is what an entry is.
type kind int

const (
	absent    kind = iota // not present: the CPU looks at nothing else of it
	malformed             // has reserved bits set: using it faults
	directory             // of a lower table
	leaf                  // of a page, or of a large one
)

// classify says what an entry of a level is, and which frames it is for.
func (m mode) classify(entry uint64, level int) (k kind, gfn, count uint64) {
	switch {
	case entry&ptePresent == 0:
		return absent, 0, 0
	case entry&pteNX != 0 && !m.nx:
		return malformed, 0, 0
	}
	gfn = entry & pteAddress >> frameShift
	switch {
	case level == levelPT:
		return leaf, gfn, 1
	case entry&pteLarge == 0:
		return directory, gfn, 1
	case level == levelPD && entry&pteLow2M == 0:
		return leaf, gfn &^ (pages2M - 1), pages2M
	case level == levelPDPT && entry&pteLow1G == 0:
		return leaf, gfn &^ (pages1G - 1), pages1G
	}
	return malformed, 0, 0
}

const (
	pages2M = 1 << 9
	pages1G = 1 << 18
)

// slot is the number of the entry for a linear address in a table of a level.
func slot(addr uint64, level int) int { return int(addr >> (frameShift + 9*(level-1)) % entries) }

func entryAt(table []byte, i int) uint64 { return binary.LittleEndian.Uint64(table[i*8:]) }

func setEntry(table []byte, i int, v uint64) { binary.LittleEndian.PutUint64(table[i*8:], v) }
