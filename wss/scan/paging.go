package scan

import (
	"fmt"

	"github.com/thawfs/thaw/wss/pagetable"
)

const (
	tableBytes = pagetable.PageSize
	frameShift = pagetable.PageShift
	entries    = pagetable.Entries
	upperHalf  = pagetable.UpperHalf
)

// mode returns the paging mode of a vCPU and its uppermost table; ok is false if it is not in 64-bit
// mode with paging.
func (c CPU) mode() (m pagetable.Mode, root uint64, ok bool) {
	return pagetable.ModeOf(c.CR0, c.CR3, c.CR4, c.EFER)
}

// memory is the memory of a guest.
type memory struct {
	Guest
	ram ram
}

// ReadTable implements pagetable.Memory.
func (m memory) ReadTable(gfn uint64, t *pagetable.Table) (bool, error) {
	if _, ok := m.ram.page(gfn); !ok {
		return false, nil
	}
	if _, err := m.ReadAt(t[:], int64(gfn<<frameShift)); err != nil {
		return false, fmt.Errorf("read page table at gfn %d: %w", gfn, err)
	}
	return true, nil
}
