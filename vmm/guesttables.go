package vmm

import (
	"errors"
	"slices"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// The guest's page tables are read before it starts, if its memory lies on a mount. A page of data
// that cannot be read stops KVM with an error that says so. A page table that cannot be read may look
// to KVM like an entry that is not present, which is the guest's own business: it gets a page fault
// that it cannot explain, and dies of that, or lives on in a wrong way. In the page cache they are
// safe from a server that dies; from eviction nothing is safe, but then the watcher is quicker.
//
// The caller of a restore decides ([Config.NoTables]): a server that records what the guest
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
	r := newTableReader(mem, mem.Size()/pageSize)
	if err := r.walkAll(vcpus); err != nil {
		return 0, err
	}
	return r.read, nil
}

// walkAll reads the tables of some vCPUs.
func (r *tableReader) walkAll(vcpus []state.VCPU) error {
	for _, c := range vcpus {
		mode, root, ok := state.LongMode(c.Sregs)
		if !ok {
			continue // no paging, or tables of another kind, which are a few pages
		}
		if err := r.walk(mode, root); err != nil {
			return err
		}
	}
	return nil
}

// pageFiles are the files that a guest's memory lies in.
type pageFiles interface {
	// ReadFiles reads whole pages from the first one on.
	ReadFiles(p []byte, first uint64) error
}

// tableReader goes through page tables. Those that one table points to it brings together, in the
// order of the image, as many of them are neighbours there; then it looks at each.
type tableReader struct {
	mem    pageFiles
	mode   pagetable.Mode
	seen   *wss.Bitmap // brought
	walked *wss.Bitmap // looked at: whatever points to a table and at which level, it is so once
	read   uint64
}

func newTableReader(mem pageFiles, pages uint64) *tableReader {
	return &tableReader{mem: mem, seen: wss.NewBitmap(pages), walked: wss.NewBitmap(pages)}
}

// walk reads the tables below a root.
func (r *tableReader) walk(mode pagetable.Mode, root uint64) error {
	r.mode = mode
	if err := r.bring([]uint64{root}); err != nil {
		return err
	}
	w := pagetable.Walk{Memory: r, Mode: mode, Enter: r.enter, Read: r.below,
		Entry: func(*pagetable.Table, *pagetable.Entry) (into bool, err error) { return true, nil }}
	return w.Root(root)
}

// enter says whether to look at a table. Those of the lowest level point to no others.
func (r *tableReader) enter(p pagetable.Place) (bool, error) {
	return p.Level > 1 && p.Frame < r.walked.Len() && r.read <= maxTables && r.walked.Set(p.Frame), nil
}

// below brings the tables that a table points to.
func (r *tableReader) below(p pagetable.Place, t *pagetable.Table) error {
	var frames []uint64
	for i := range pagetable.Entries {
		if kind, frame, _ := r.mode.Classify(t.Entry(i), p.Level); kind == pagetable.Directory {
			frames = append(frames, frame)
		}
	}
	slices.Sort(frames)
	return r.bring(frames)
}

// bring reads those of some frames, ascending, that were not read before.
func (r *tableReader) bring(frames []uint64) error {
	var run ram.PageRun
	for _, frame := range frames {
		if frame >= r.seen.Len() || !r.seen.Set(frame) {
			continue
		}
		if frame != run.First+run.Count {
			if err := r.bringRun(run); err != nil {
				return err
			}
			run = ram.PageRun{First: frame}
		}
		run.Count++
	}
	return r.bringRun(run)
}

func (r *tableReader) bringRun(run ram.PageRun) error {
	for _, c := range ram.Chunks(run) {
		if r.read += c.Count; r.read > maxTables {
			return nil
		}
		if err := r.pages(make([]byte, c.Count*pageSize), c.First); err != nil {
			return err
		}
	}
	return nil
}

// ReadTable implements pagetable.Memory. The table has just been brought.
func (r *tableReader) ReadTable(frame uint64, t *pagetable.Table) (bool, error) {
	return true, r.pages(t[:], frame)
}

func (r *tableReader) pages(b []byte, first uint64) error {
	err := r.mem.ReadFiles(b, first)
	var lost *ram.LostError
	if errors.As(err, &lost) {
		lost.Sign = "a page table of the guest: " + lost.Sign
	}
	return err
}
