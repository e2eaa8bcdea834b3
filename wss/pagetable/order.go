package pagetable

import (
	"context"
	"slices"

	"github.com/thawfs/thaw/wss"
)

// AddressSpace lists pages of the image in the order of their virtual addresses, each page once.
type AddressSpace struct {
	Kernel bool
	Runs   []Extent
}

// Order returns the address spaces of roots as lists of pages: first of each program, then of the
// kernel that they share. A page table is listed before the pages that it maps. A page that several
// address spaces map is listed only in the first.
//
// A kernel's map of all physical memory does not show which pages belong together. So if a half maps at
// least half of the image at a constant distance between virtual and physical address, that part is
// left out. It is kept if nothing else is mapped: a guest without a kernel may use its physical memory
// directly.
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
		if err := o.add(ctx, false, h); err != nil {
			return nil, err
		}
	}
	if err := o.add(ctx, true, kernels...); err != nil {
		return nil, err
	}
	return o.out, nil
}

// halves walks the lower and upper halves of roots.
func (s *Space) halves(ctx context.Context, roots []Root) (lower, upper []mapped, err error) {
	w := s.newMapper()
	left := maxMappings(s.pages)
	for _, half := range []Half{Lower, Upper} {
		for _, r := range roots {
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			h := mapped{distances: map[uint64]uint64{}, left: &left}
			if err := w.root(ctx, r, half, h.add); err != nil {
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

// mapped is the memory that a half of an address space maps.
type mapped struct {
	all       []Mapping
	distances map[uint64]uint64 // number of pages at each distance
	left      *uint64           // mappings that all of them may still list
}

// maxMappings is how many mappings are listed of an image, some 80 bytes each. Many processes map what they
// share; but a hostile guest maps its memory 64 times, page by page, and that would take more than its
// memory.
func maxMappings(pages uint64) uint64 { return 1<<16 + 8*pages }

func (h *mapped) add(m Mapping) {
	switch n := len(h.all); {
	case n > 0 && h.all[n-1].follows(m):
		h.all[n-1].Count += m.Count
	case *h.left == 0:
		return
	default:
		*h.left--
		h.all = append(h.all, m)
	}
	if !m.Table {
		h.distances[m.distance()] += m.Count
	}
}

// makesSense says whether anything is mapped except a map of at least much pages at one distance.
func (h *mapped) makesSense(much uint64) bool {
	for _, n := range h.distances {
		if n < much {
			return true
		}
	}
	return false
}

// ordering builds the list of address spaces.
type ordering struct {
	out   []AddressSpace
	got   *wss.Bitmap // pages that are listed already
	much  uint64      // this many pages at one distance are a map of all memory
	sense bool        // there are mappings other than such maps
}

// add appends an address space that consists of the given halves. It takes long if a large image is mapped
// again and again.
func (o *ordering) add(ctx context.Context, kernel bool, halves ...mapped) error {
	a := AddressSpace{Kernel: kernel}
	for _, h := range halves {
		for _, m := range h.all {
			if err := ctx.Err(); err != nil {
				return err
			}
			if m.Table || !o.sense || h.distances[m.distance()] < o.much {
				a.add(o.got, m.Page, m.Count)
			}
		}
	}
	if len(a.Runs) > 0 {
		o.out = append(o.out, a)
	}
	return nil
}

// distance returns the difference between the virtual page number and the page of the image.
func (m Mapping) distance() uint64 { return m.Virtual/PageSize - m.Page }

// follows says whether next continues where m ends.
func (m Mapping) follows(next Mapping) bool {
	return !m.Table && !next.Table && m.Virtual+m.Count*PageSize == next.Virtual &&
		m.Page+m.Count == next.Page
}

// add appends the pages that are in no address space yet.
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
