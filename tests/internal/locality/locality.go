// Package locality counts what locality blocks are worth (Zhang et al., "Halite", USENIX ATC 2013,
// table of section 5): a sequence of first touches is replayed against an image, each touch of a
// page that is not there is a request and brings what lies in one block with it.
package locality

import (
	"fmt"

	"github.com/thawfs/thaw/index"
)

// Figures are what a replay came to.
type Figures struct {
	Touched  int // distinct pages
	Requests int // touches of pages that were not there
	Brought  int // pages that came along with others
	Used     int // those of them that were touched later
}

// PerPage is the number of requests for a page touched.
func (f Figures) PerPage() float64 { return float64(f.Requests) / float64(max(f.Touched, 1)) }

// Share is the share of the pages brought along that were used; 0 if none were.
func (f Figures) Share() float64 { return float64(f.Used) / float64(max(f.Brought, 1)) }

func (f Figures) String() string {
	return fmt.Sprintf("%d pages touched, %d requests (%.2f a page), %d brought along, %.0f %% used",
		f.Touched, f.Requests, f.PerPage(), f.Brought, 100*f.Share())
}

// Replay touches pages in their order. with gives what comes with a page, that page among it or
// not.
func Replay(touches []uint64, with func(gfn uint64) []uint64) Figures {
	var f Figures
	touched, there := map[uint64]bool{}, map[uint64]bool{}
	for _, gfn := range touches {
		if touched[gfn] {
			continue
		}
		touched[gfn] = true
		f.Touched++
		if there[gfn] {
			f.Used++
			continue
		}
		there[gfn] = true
		f.Requests++
		for _, n := range with(gfn) {
			if !there[n] {
				there[n] = true
				f.Brought++
			}
		}
	}
	return f
}

// group is how many zero pages come together: they lie in no block, and the server brings those
// beside a zero page that is touched.
const group = 16

// Single brings nothing along.
func Single(uint64) []uint64 { return nil }

// Physical brings the aligned 64 KiB that a page lies in.
func Physical(gfn uint64) (gfns []uint64) {
	for i := range uint64(group) {
		gfns = append(gfns, gfn/group*group+i)
	}
	return gfns
}

// Blocks brings what an image has in one block with a page.
func Blocks(m *index.Image) func(gfn uint64) []uint64 {
	return func(gfn uint64) (gfns []uint64) {
		if b, ok := m.Block(gfn); ok {
			return m.BlockGFNs(b, nil)
		}
		for _, n := range Physical(gfn) {
			if n < m.Pages() && m.Zero(n) {
				gfns = append(gfns, n)
			}
		}
		return gfns
	}
}
