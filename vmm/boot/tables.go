package boot

import (
	"encoding/binary"
	"io"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// A guest program has no kernel, so the VMM makes its page tables: four levels, 4 KiB pages, with every
// page of RAM except page 0 mapped at its physical address for user mode.
//
// Small pages need 2 MiB of tables for each GiB, but they have one access and dirty bit for each page,
// and a working set consists of single pages. The tables are pages of the image like all others.

const pageSize = wss.PageSize

const pageTableBase = guest.Reserved

const (
	pteFlags     = pagetable.Present | pagetable.Writable | pagetable.User
	tableEntries = pagetable.Entries
)

// spans has the number of bytes that one table of each level maps, lowest level first.
var spans = [4]uint64{2 << 20, 1 << 30, 512 << 30, 256 << 40}

// pageTables has the addresses of a machine's tables: the tables of one level are contiguous, the
// highest level is first, so the root is at pageTableBase.
type pageTables struct {
	end   uint64    // end of the mapped addresses
	base  [4]uint64 // address of the first table of a level
	count [4]uint64
	after uint64 // end of all tables
}

func layOutPageTables(regions []ram.Region) pageTables {
	t := pageTables{end: ram.ImageSize(regions)}
	addr := uint64(pageTableBase)
	for level := 3; level >= 0; level-- {
		t.base[level] = addr
		t.count[level] = (t.end + spans[level] - 1) / spans[level]
		addr += t.count[level] * pageSize
	}
	t.after = addr
	return t
}

// write writes the tables into guest memory.
func (t pageTables) write(mem io.WriterAt, regions []ram.Region) error {
	table := make([]byte, pageSize)
	for level := range t.base {
		for n := range t.count[level] {
			t.fill(table, regions, level, n)
			if _, err := mem.WriteAt(table, int64(t.base[level]+n*pageSize)); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill fills table n of a level.
func (t pageTables) fill(table []byte, regions []ram.Region, level int, n uint64) {
	for i := range uint64(tableEntries) {
		var entry uint64
		index := n*tableEntries + i
		switch {
		case level > 0:
			if index < t.count[level-1] {
				entry = t.base[level-1] + index*pageSize | pteFlags
			}
		case index > 0 && ram.Contains(regions, index*pageSize):
			entry = index*pageSize | pteFlags
		}
		binary.LittleEndian.PutUint64(table[i*8:], entry)
	}
}
