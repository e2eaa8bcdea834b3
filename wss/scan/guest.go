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

// Guest is a machine whose page tables are scanned. A VMM implements it for its own machine, or for
// one of another process whose memory and vCPUs it can reach.
//
// ReadAt and RAM may be called at any time, also while the guest runs; everything else is called by
// one goroutine, and what is said to need a pause only between Pause and Resume.
type Guest interface {
	// ReadAt reads guest memory at a guest-physical address. It is only asked for what RAM lists.
	io.ReaderAt
	// WriteAt changes guest memory; needs a pause.
	io.WriterAt
	// RAM lists where in the guest-physical address space memory is, and which pages of the image
	// that makes; it does not change.
	RAM() []Region
	// Pause stops all vCPUs. When it returns none executes, and what they did is in memory.
	Pause(ctx context.Context) error
	// Resume lets them go on, or keeps them stopped if somebody else wants that too.
	Resume() error
	// CPUs tells the registers of all vCPUs; needs a pause.
	CPUs() ([]CPU, error)
	// Flushes lists the ways in which this host may be able to make the vCPUs set access bits again
	// that were cleared in memory, cheapest first.
	Flushes() []Flush
}

// Presence is a Guest that knows which pages have content on this host: were ever read or written,
// by the guest or for it. What is absent is neither searched (reading it might bring it in) nor
// counted where one access bit stands for many pages.
type Presence interface {
	// Present lists pages of the image.
	Present() (*wss.Bitmap, error)
}

// Region says that Count guest frames from GFN on are RAM, and which pages of the image they are.
// For an image that is byte for byte the guest-physical memory, Page is GFN; QEMU's memory file
// leaves out the hole below 4 GiB.
type Region struct{ GFN, Count, Page uint64 }

// CPU is what is asked of a vCPU's registers.
type CPU struct {
	CR0, CR3, CR4, EFER uint64
	RIP                 uint64 // linear address of the next instruction
	Halted              bool   // waits for an interrupt, or was never started
}

// Flush is a way to make vCPUs set access bits again: they keep translations, in TLBs and, where
// the hypervisor shadows the guest's tables, in those, and a page that is touched through such a
// translation does not get its bit.
type Flush struct {
	Name string
	// Do does it, for all vCPUs; needs a pause.
	Do func() error
	// Refault is what the guest then pays for the next touch of a page, as far as that is known:
	// some 2 to 3 us where shadow tables have to be made again, some tens of ns where only the TLB
	// is filled. 0: DefaultRefault.
	Refault time.Duration
}

// DefaultRefault is the cost of a refault where a Flush does not tell: what was measured with shadow
// tables that are dropped as a whole.
const DefaultRefault = 2400 * time.Nanosecond

// ErrNoBits matches (errors.Is) the errors that say that access bits do not come back, so that
// nothing is known of what the guest touches.
var ErrNoBits = errors.New("access bits do not come back")

// NoBitsError says which ways to flush were tried. It matches ErrNoBits.
type NoBitsError struct {
	Tried []string
	// Halted: no vCPU was seen to run meanwhile, so that none of the ways was shown not to work.
	Halted bool
}

func (e *NoBitsError) Error() string {
	text := fmt.Sprintf("%v; tried: %q", ErrNoBits, e.Tried)
	if e.Halted {
		text += "; but all vCPUs were halted"
	}
	return text
}

// Is makes errors.Is(err, ErrNoBits) true.
func (e *NoBitsError) Is(target error) bool { return target == ErrNoBits }

// ErrNoTables: no vCPU uses page tables of 64-bit mode.
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
			return ram{}, fmt.Errorf("RAM of %d pages at gfn %d, page %d", r.Count, r.GFN, r.Page)
		}
		if r.GFN < next {
			return ram{}, fmt.Errorf("two regions of RAM at gfn %d", r.GFN)
		}
		next = r.GFN + r.Count
		m.pages = max(m.pages, r.Page+r.Count)
	}
	if m.pages == 0 {
		return ram{}, errors.New("the guest has no RAM")
	}
	return m, nil
}

// page is the page of the image that a frame is.
func (m ram) page(gfn uint64) (uint64, bool) {
	for _, r := range m.regions {
		if gfn-r.GFN < r.Count { // gfn below r.GFN wraps around
			return r.Page + gfn - r.GFN, true
		}
	}
	return 0, false
}

// pagesOf calls f for the stretches of image pages that count frames from gfn on are.
func (m ram) pagesOf(gfn, count uint64, f func(first, count uint64)) {
	for _, r := range m.regions {
		from, to := max(gfn, r.GFN), min(gfn+count, r.GFN+r.Count)
		if from < to {
			f(r.Page+from-r.GFN, to-from)
		}
	}
}
