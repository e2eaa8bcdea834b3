package scan

import (
	"encoding/binary"

	"github.com/thawfs/thaw/wss/pagetable"
)

// What the architecture says of page tables in 64-bit mode (Intel SDM volume 3A, 4.5; AMD APM
// volume 2, 5.3). The form of entries is for package pagetable.
const (
	pteUser     = 1 << 2
	pteAccessed = 1 << 5
	pteDirty    = 1 << 6
	pteNX       = pagetable.NX
	pteAddress  = 0x000f_ffff_ffff_f000

	cr0Paging  = 1 << 31
	cr4PAE     = 1 << 5
	cr4LA57    = 1 << 12
	eferLMA    = 1 << 10
	eferNXE    = 1 << 11
	entries    = 512
	tableBytes = 4096
	frameShift = 12
	pages2M    = 1 << 9

	levelPT, levelPD, levelPDPT, levelPML4, levelPML5 = 1, 2, 3, 4, 5
)

// mode is how a vCPU reads its tables.
type mode struct {
	levels   int    // 4 or 5
	reserved uint64 // NX, if that is
}

// mode of a vCPU; false: not one of 64-bit mode with paging.
func (c CPU) mode() (mode, bool) {
	if c.CR0&cr0Paging == 0 || c.CR4&cr4PAE == 0 || c.EFER&eferLMA == 0 {
		return mode{}, false
	}
	m := mode{levels: levelPML4}
	if c.EFER&eferNXE == 0 {
		m.reserved = pagetable.NX
	}
	if c.CR4&cr4LA57 != 0 {
		m.levels = levelPML5
	}
	return m, true
}

// root is the frame of the vCPU's uppermost table: CR3 without PCID or cache bits below the
// address, and without what LAM has above.
func (c CPU) root() uint64 { return c.CR3 & pteAddress >> frameShift }

// classify says what an entry of a level is, and which frames it is for.
func (m mode) classify(entry uint64, level int) (k pagetable.Kind, gfn, count uint64) {
	return pagetable.Classify(entry, level, m.reserved)
}

// slot is the number of the entry for a linear address in a table of a level.
func slot(addr uint64, level int) int { return int(addr >> (frameShift + 9*(level-1)) % entries) }

func entryAt(table []byte, i int) uint64 { return binary.LittleEndian.Uint64(table[i*8:]) }

func setEntry(table []byte, i int, v uint64) { binary.LittleEndian.PutUint64(table[i*8:], v) }
