package pagetable

import (
	"context"
	"slices"

	"github.com/thawfs/thaw/wss"
)

// AddressSpace is pages of the image in the order of their virtual addresses, each page once.
type AddressSpace struct {
	Kernel bool
	Runs   []Extent
}

// Order returns the address spaces of roots as lists of pages: of each program, the tables among
// them, before what they map; then of the kernel that all have. A page that several map is the
// first one's.
//
// A map of all physical memory, as kernels have it, says nothing of what belongs together: where a
// half maps half of the image or more at one distance from its place, that part is left out. But if
// nothing is mapped otherwise, it is what there is: the program of a machine without a kernel may
// use its memory one to one.
func (s *Space) Order(ctx context.Context, roots []Root) ([]AddressSpace, error) {
	programs, kernels, err := s.halves(ctx, roots)
	if err != nil {
		return nil, err
	}
	o := ordering{got: wss.NewBitmap(s.pages), much: (s.pages + 1) / 2}
	for _, h := range append(slices.Clone(programs), kernels...) {
		o.sense = o.sense || h.makesSense(o.much)
	}
	for _, h := range programs {
		o.add(false, h)
	}
	o.add(true, kernels...)
	return o.out, nil
}

// halves walks the lower and the upper halves of roots.
func (s *Space) halves(ctx context.Context, roots []Root) (lower, upper []mapped, err error) {
	w := s.newMapper()
	for _, half := range []Half{Lower, Upper} {
		for _, r := range roots {
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			h := mapped{distances: map[uint64]uint64{}}
			if err := w.root(r, half, h.add); err != nil {
				return nil, nil, err
			}
			if half == Lower {
				lower = append(lower, h)
			} else {
				upper = append(upper, h)
			}
		}
	}
	return lower, upper, nil
}

// mapped is what a half of an address space maps.
type mapped struct {
	all       []Mapping
	distances map[uint64]uint64 // pages at each
}

func (h *mapped) add(m Mapping) {
	if n := len(h.all); n > 0 && h.all[n-1].follows(m) {
		h.all[n-1].Count += m.Count
	} else {
		h.all = append(h.all, m)
	}
	if !m.Table {
		h.distances[m.distance()] += m.Count
	}
}

// makesSense says whether something is mapped but a map of that much memory.
func (h *mapped) makesSense(much uint64) bool {
	for _, n := range h.distances {
		if n < much {
			return true
		}
	}
	return false
}

// ordering is a list of address spaces in the making.
type ordering struct {
	out   []AddressSpace
	got   *wss.Bitmap // pages that have their place
	much  uint64      // pages at one distance that make a map of all memory
	sense bool        // there is something else than such maps
}

// add appends an address space of some halves.
func (o *ordering) add(kernel bool, halves ...mapped) {
	a := AddressSpace{Kernel: kernel}
	for _, h := range halves {
		for _, m := range h.all {
			if m.Table || !o.sense || h.distances[m.distance()] < o.much {
				a.add(o.got, m.Page, m.Count)
			}
		}
	}
	if len(a.Runs) > 0 {
		o.out = append(o.out, a)
	}
}

// distance is what lies between the virtual address of a page and its place.
func (m Mapping) distance() uint64 { return m.Virtual/PageSize - m.Page }

// follows says whether next goes on where m ends.
func (m Mapping) follows(next Mapping) bool {
	return !m.Table && !next.Table && m.Virtual+m.Count*PageSize == next.Virtual &&
		m.Page+m.Count == next.Page
}

// add appends those of the pages that are in no address space yet.
func (a *AddressSpace) add(got *wss.Bitmap, page, count uint64) {
	for ; count > 0; page, count = page+1, count-1 {
		if !got.Set(page) {
			continue
		}
		if n := len(a.Runs); n > 0 && a.Runs[n-1].Page+a.Runs[n-1].Count == page {
			a.Runs[n-1].Count++
		} else {
			a.Runs = append(a.Runs, Extent{page, 1})
		}
	}
}
