// Package locality measures the benefit of locality blocks (Zhang et al., "Halite", USENIX ATC 2013,
// table of section 5). It replays a sequence of first touches against an image: each touch of a page
// that is not loaded is a request, which loads all pages of its block.
package locality

import (
	"fmt"

	"github.com/thawfs/thaw/index"
)

// Figures are the result of a replay.
type Figures struct {
	Touched  int // distinct pages
	Requests int // touches of pages that were not loaded
	Brought  int // pages that were loaded with a touched one
	Used     int // those of them that were touched later
}

// PerPage returns the number of requests per touched page.
func (f Figures) PerPage() float64 { return float64(f.Requests) / float64(max(f.Touched, 1)) }

// Share returns the share of the pages loaded with others that were used later; 0 if there were none.
func (f Figures) Share() float64 { return float64(f.Used) / float64(max(f.Brought, 1)) }

func (f Figures) String() string {
	return fmt.Sprintf("%d pages touched, %d requests (%.2f a page), %d brought along, %.0f %% used",
		f.Touched, f.Requests, f.PerPage(), f.Brought, 100*f.Share())
}

// Replay touches pages in order. with returns the pages that are loaded with a page; that page itself
// may be among them or not.
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

// group is how many zero pages are loaded together: they are in no block, and the server loads the
// neighbours of a touched zero page.
const group = 16

// Single loads only the touched page.
func Single(uint64) []uint64 { return nil }

// Physical loads the aligned 64 KiB around a page.
func Physical(gfn uint64) (gfns []uint64) {
	for i := range uint64(group) {
		gfns = append(gfns, gfn/group*group+i)
	}
	return gfns
}

// Blocks loads the locality block of a page.
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
