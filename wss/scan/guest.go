package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Guest is a machine whose page tables are scanned. A VMM implements it for its own machine, or a
// program for a machine of another process whose memory and vCPUs it can access.
//
// ReadAt and RAM may be called at any time, also while the guest runs, ReadAt by several goroutines at
// once. The other methods are called by one goroutine; those that need a pause are called only between
// Pause and Resume.
type Guest interface {
	// ReadAt reads guest memory at a guest-physical address, which is in a region of RAM.
	io.ReaderAt
	// WriteAt changes guest memory; needs a pause.
	io.WriterAt
	// RAM lists the regions of guest-physical memory and their pages of the image. The result never changes.
	RAM() []Region
	// Pause stops all vCPUs. When it returns none executes, and all their writes are in memory.
	Pause(ctx context.Context) error
	// Resume continues the vCPUs, unless the machine was paused before Pause.
	Resume() error
	// CPUs returns the registers of all vCPUs; needs a pause.
	CPUs() ([]CPU, error)
	// Flushes lists ways that may make the vCPUs set access bits again after they were cleared in
	// memory, the cheapest first.
	Flushes() []Flush
}

// Presence is a Guest that knows which pages have content on this host, because they were read or
// written before. Absent pages are not searched (reading might load them), and are not counted when one
// access bit stands for many pages.
type Presence interface {
	// Present lists pages of the image.
	Present() (*wss.Bitmap, error)
}

// Region is a run of Count guest frames from GFN on that are RAM; Page is the first one's page of the
// image. If the image is guest-physical memory byte for byte, Page equals GFN; QEMU's memory file omits
// the hole below 4 GiB.
type Region struct{ GFN, Count, Page uint64 }

// CPU has the registers of a vCPU that a scan needs.
type CPU struct {
	CR0, CR3, CR4, EFER uint64
	RIP                 uint64 // linear address of the next instruction
	Halted              bool   // it waits for an interrupt, or was never started
}

// Flush is a way to make vCPUs set access bits again. vCPUs cache translations in TLBs and, if the
// hypervisor shadows the guest's tables, in shadow tables. A touch of a page through a cached
// translation does not set its bit.
type Flush struct {
	Name string
	// Do flushes all vCPUs; needs a pause.
	Do func() error
	// Refault is the cost of the next touch of a page after this flush: about 2 to 3 us if shadow
	// tables must be made again, some tens of ns if only the TLB is filled. 0 means DefaultRefault.
	Refault time.Duration
}

// DefaultRefault is the default of [Flush].Refault, measured with shadow tables that are dropped completely.
const DefaultRefault = 2400 * time.Nanosecond

// ErrNoBits matches (errors.Is) errors that say that cleared access bits are not set again, so that
// touched pages cannot be found.
var ErrNoBits = errors.New("cleared access bits are not set again")

// NoBitsError lists the ways to flush that were tried. It matches ErrNoBits.
type NoBitsError struct {
	Tried []string
	// Halted says that no vCPU ran during the tests, so the ways may still work.
	Halted bool
	// Unseen says that it is not known whether one ran.
	Unseen bool
}

func (e *NoBitsError) Error() string {
	text := fmt.Sprintf("%v; tried: %q", ErrNoBits, e.Tried)
	if e.Halted {
		text += "; but all vCPUs were halted"
	}
	if e.Unseen {
		text += "; whether a vCPU ran is not known"
	}
	return text
}

// Is makes errors.Is(err, ErrNoBits) true.
func (e *NoBitsError) Is(target error) bool { return target == ErrNoBits }

// ErrNoTables says that no vCPU uses page tables of 64-bit mode.
var ErrNoTables = errors.New("no vCPU is in 64-bit mode with paging")

// ram is the guest's regions, ascending by GFN.
type ram struct {
	regions []Region
	pages   uint64 // of the image
}

func newRAM(regions []Region) (ram, error) {
	m := ram{regions: slices.Clone(regions)}
	slices.SortFunc(m.regions, func(a, b Region) int { return cmp.Compare(a.GFN, b.GFN) })
	next := uint64(0)
	for _, r := range m.regions {
		const most = wss.MaxImagePages
		if r.Count == 0 || r.Count > most || r.GFN > most-r.Count || r.Page > most-r.Count {
			return ram{}, fmt.Errorf("a region of RAM of %d pages at gfn %d, page %d, is not possible", r.Count, r.GFN,
				r.Page)
		}
		if r.GFN < next {
			return ram{}, fmt.Errorf("two regions of RAM overlap at gfn %d", r.GFN)
		}
		next = r.GFN + r.Count
		m.pages = max(m.pages, r.Page+r.Count)
	}
	if m.pages == 0 {
		return ram{}, errors.New("the guest has no RAM")
	}
	return m, nil
}

// page returns the page of the image for a frame.
func (m ram) page(gfn uint64) (uint64, bool) {
	for _, r := range m.regions {
		if gfn-r.GFN < r.Count { // gfn below r.GFN wraps around
			return r.Page + gfn - r.GFN, true
		}
	}
	return 0, false
}

// pagesOf calls f for the runs of image pages that belong to count frames from gfn on.
func (m ram) pagesOf(gfn, count uint64, f func(first, count uint64)) {
	for _, r := range m.regions {
		from, to := max(gfn, r.GFN), min(gfn+count, r.GFN+r.Count)
		if from < to {
			f(r.Page+from-r.GFN, to-from)
		}
	}
}
