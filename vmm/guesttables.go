package vmm

import (
	"errors"
	"slices"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// The guest's page tables are read before it starts, if its memory lies on a mount. If a page of data
// cannot be read, KVM_RUN fails with an error. If a page table cannot be read, KVM may treat it like an
// entry that is not present: the guest gets a page fault that it cannot explain, and crashes or
// continues wrongly. Page tables in the page cache stay readable when the server dies. They may still
// be evicted, but the watcher usually ends the machine before that.
//
// The caller of a restore can turn this off ([Config].NoTables): a server that records the guest's
// reads as a working set would also record the page tables that the guest does not need.
//
// The page tables are read from the file, not through the mapping, so they do not count as touched. No
// page is populated in the mapping, not even the prefetched ones. MADV_POPULATE_READ would cost 0.4 us
// for every page while the user waits, and would save 0.9 us for every page that the guest touches,
// spread over its run. It would also make pages present that the guest never touched, and "present" is
// how touched pages are counted.

// maxTables is the most page tables that are read: 256 MiB, enough to map half a terabyte in 4 KiB pages.
const maxTables = 1 << 16

// readTables reads the page tables of all vCPUs and returns their number of pages.
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

// pageFiles reads guest memory from the files behind it.
type pageFiles interface {
	// ReadFiles fills p, whole pages, beginning with the page first.
	ReadFiles(p []byte, first uint64) error
}

// tableReader reads page tables. All tables that one table points to are read together, in the order of
// the image, where many of them are neighbours. Then each is walked.
type tableReader struct {
	mem    pageFiles
	mode   pagetable.Mode
	seen   *wss.Bitmap // tables that were read
	walked *wss.Bitmap // tables that were walked: each only once, however often it is used
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

// enter says whether to walk a table. Tables of the lowest level point to no others.
func (r *tableReader) enter(p pagetable.Place) (bool, error) {
	return p.Level > 1 && p.Frame < r.walked.Len() && r.read <= maxTables && r.walked.Set(p.Frame), nil
}

// below reads the tables that a table points to.
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

// bring reads the frames that were not read before. frames is ascending.
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

// ReadTable implements pagetable.Memory, from the tables that bring has read.
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
