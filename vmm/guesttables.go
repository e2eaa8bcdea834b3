package vmm

import (
	"encoding/binary"
	"errors"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// The guest's page tables are read before it starts, if its memory lies on a mount. A page of data
// that cannot be had stops KVM with an error that says so. A page table that cannot be had may look
// to KVM like an entry that is not present, which is the guest's own business: it gets a page fault
// that it cannot explain, and dies of that, or lives on in a wrong way. In the page cache they are
// safe from a server that dies; from eviction nothing is safe, but then the watcher is quicker.
//
// It is for whoever restores to decide ([Config.NoTables]): a server that records what the guest
// reads, to make a working set of it, records the tables too, those that the guest needs and
// others.
//
// They are read from the file, and not populated in the mapping, so that they do not count as
// touched. Nor is anything else populated, not even what was prefetched. MADV_POPULATE_READ costs
// 0.4 us a page, of all pages, while the user waits; it spares 0.9 us of the first touch, of the
// pages that are touched, which a guest spreads over its run; and then "present" does not mean
// "touched" any more, which is what prefetched, skipped and lazy pages are counted by.

// maxTables bounds what is read: 256 MiB, the tables of half a terabyte in small pages.
const maxTables = 1 << 16

// readTables reads the page tables of all vCPUs, and says how many pages they are.
func readTables(mem *ram.Memory, vcpus []state.VCPU) (uint64, error) {
	if len(mem.Remote()) == 0 {
		return 0, nil
	}
	r := &tableReader{mem: mem, seen: wss.NewBitmap(mem.Size() / pageSize)}
	for _, c := range vcpus {
		root, levels, ok := state.LongMode(c.Sregs)
		if !ok {
			continue // no paging, or tables of another kind, which are a few pages
		}
		if err := r.walk(root, levels); err != nil {
			return 0, err
		}
	}
	return r.read, nil
}

// tableReader goes through page tables level by level, so that neighbours are read together.
type tableReader struct {
	mem  *ram.Memory
	seen *wss.Bitmap
	read uint64
}

// walk reads the tables below a root.
func (w *tableReader) walk(root uint64, levels int) error {
	pages := w.mem.Size() / pageSize
	if root >= pages {
		return nil
	}
	level := wss.NewBitmap(pages)
	level.Set(root)
	for ; levels > 0; levels-- {
		next := wss.NewBitmap(pages)
		for first, n := range level.AndNot(w.seen).Runs() {
			if err := w.tables(ram.PageRun{First: first, Count: n}, levels, next); err != nil {
				return err
			}
		}
		w.seen = w.seen.Or(level)
		level = next
	}
	return nil
}

// tables reads a run of tables of one level, and notes the tables that they point to.
func (w *tableReader) tables(run ram.PageRun, level int, next *wss.Bitmap) error {
	for _, c := range ram.Chunks(run) {
		if w.read += c.Count; w.read > maxTables {
			return nil
		}
		b := make([]byte, c.Count*pageSize)
		err := w.mem.ReadFiles(b, c.First)
		var lost *ram.LostError
		if errors.As(err, &lost) {
			lost.Sign = "a page table of the guest: " + lost.Sign
		}
		if err != nil {
			return err
		}
		for ; level > 1 && len(b) > 0; b = b[8:] {
			kind, gfn, _ := pagetable.Classify(binary.LittleEndian.Uint64(b), level, 0)
			if kind == pagetable.Directory && gfn < next.Len() {
				next.Set(gfn)
			}
		}
	}
	return nil
}
