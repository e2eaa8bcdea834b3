package boot

import (
	"encoding/binary"
	"io"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// The guest has no kernel, so the VMM builds its page tables: four levels, 4 KiB pages, every page
// of RAM (but page 0) mapped to itself for user mode.
//
// Small pages cost memory, 2 MiB for each GiB, and are the point: the access and dirty bits that
// the CPU sets in them are those of single pages, which is what a working set consists of. The
// tables are pages of the image like all others.

const pageSize = wss.PageSize

const pageTableBase = guest.Reserved

const (
	pteFlags     = pagetable.Present | pagetable.Writable | pagetable.User
	tableEntries = pagetable.Entries
)

// spans are the bytes that one table of each level maps, lowest level first.
var spans = [4]uint64{2 << 20, 1 << 30, 512 << 30, 256 << 40}

// pageTables says where the tables of a machine lie: those of one level side by side, the highest
// level first, so that the root is at pageTableBase.
type pageTables struct {
	end   uint64    // first address that is not mapped
	base  [4]uint64 // address of the first table of a level
	count [4]uint64
	after uint64 // address behind all of them
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

// write puts the tables into guest memory.
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

// fill makes table n of a level.
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
