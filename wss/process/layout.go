package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/wss/pagetable"
	"github.com/thawfs/thaw/wss/ramfile"
)

const (
	pageSize = pagetable.PageSize
	gib      = 1 << 30
	fourGiB  = 4 * gib
	// flat is how much RAM every VMM has below 4 GiB without a hole.
	flat = 2 * gib
	// maxTables bounds the tables of a kernel's map of memory.
	maxTables = 1 << 18
	// unsure is by how much a guest's map of its RAM may differ from the RAM, in bytes. Two places of the
	// hole differ by four times that at least.
	unsure = 128 << 20
)

// lowEnds is where RAM below 4 GiB ends in machines that have more: QEMU's q35, the same with less RAM,
// Firecracker and Cloud Hypervisor and QEMU's pc, crosvm, and QEMU's pc with less RAM.
var lowEnds = []uint64{0x8000_0000, 0xb000_0000, 0xc000_0000, 0xd000_0000, 0xe000_0000}

// placesFor are the places of a file of a size if so much of it is below 4 GiB.
func placesFor(size, below uint64) []ramfile.Place {
	if size <= below {
		return []ramfile.Place{{GPA: 0, Size: size, Offset: 0}}
	}
	return []ramfile.Place{{GPA: 0, Size: below, Offset: 0},
		{GPA: fourGiB, Size: size - below, Offset: below}}
}

// layout finds out where the guest has its RAM, while it runs. below is what the caller knows; 0: nothing.
func layout(ctx context.Context, f ramfile.File, below uint64) ([]ramfile.Place, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := uint64(st.Size()) / pageSize * pageSize
	switch {
	case below%pageSize != 0 || below > fourGiB:
		return nil, fmt.Errorf("%w: %d bytes of RAM cannot be below 4 GiB", ErrLayout, below)
	case below != 0:
		return placesFor(size, below), nil
	case size <= flat:
		return placesFor(size, size), nil
	}
	var best []ramfile.Place
	least := uint64(unsure)
	for i, end := range lowEnds {
		if i > 0 && lowEnds[i-1] >= size {
			break // without a hole, as before
		}
		places := placesFor(size, end)
		d, err := differ(ctx, ramfile.File{File: f.File, Places: places})
		if err != nil {
			return nil, err
		}
		if d < least {
			best, least = places, d
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: no usual layout agrees with the map that the guest's kernel has of it",
			ErrLayout)
	}
	return best, nil
}

// differ is by how much the guest's own map of its RAM differs from the places of a file, in bytes.
func differ(ctx context.Context, f ramfile.File) (uint64, error) {
	pages, err := f.Pages()
	if err != nil {
		return 0, err
	}
	present, err := f.Present()
	if err != nil {
		return 0, err
	}
	var regions []pagetable.Region
	ram := uint64(0)
	for _, p := range f.Places {
		regions = append(regions, pagetable.Region{GPA: p.GPA, Bytes: p.Size, Offset: p.Offset})
		ram += p.Size
	}
	// The embedded file reads by offset, as an image is read.
	space, err := pagetable.NewSpace(f.File, pages, regions)
	if err != nil {
		return 0, err
	}
	extents := []pagetable.Extent{} // nil would mean all of it
	for first, count := range present.Runs() {
		extents = append(extents, pagetable.Extent{Page: first, Count: count})
	}
	roots, err := space.Find(ctx, extents)
	if err != nil || len(roots) == 0 {
		return ^uint64(0), err
	}
	mapped, err := directMap(space, roots[0])
	if err != nil {
		return 0, err
	}
	all, both := uint64(0), uint64(0)
	for _, x := range mapped {
		all += x.Count * pageSize
		for _, p := range f.Places {
			from, to := max(x.Page*pageSize, p.GPA), min((x.Page+x.Count)*pageSize, p.GPA+p.Size)
			if from < to {
				both += to - from
			}
		}
	}
	return all + ram - 2*both, nil
}

// directMap lists the frames that a kernel maps at one distance between virtual and physical address: of
// all distances the one with the most frames.
func directMap(space *pagetable.Space, root pagetable.Root) ([]pagetable.Extent, error) {
	byDistance := map[uint64][]pagetable.Extent{}
	tables := 0
	w := pagetable.Walk{Memory: space, Mode: pagetable.Mode{Levels: root.Levels}}
	w.Enter = func(pagetable.Place) (bool, error) {
		if tables++; tables > maxTables {
			return false, errManyTables
		}
		return true, nil
	}
	w.Entry = func(_ *pagetable.Table, e *pagetable.Entry) (bool, error) {
		if !e.Upper() {
			return false, nil
		}
		if e.Kind == pagetable.Leaf {
			d := e.Virtual/pageSize - e.Frame
			list := byDistance[d]
			if n := len(list); n > 0 && list[n-1].Page+list[n-1].Count == e.Frame {
				list[n-1].Count += e.Count
			} else {
				byDistance[d] = append(list, pagetable.Extent{Page: e.Frame, Count: e.Count})
			}
		}
		return true, nil
	}
	if err := w.Root(root.GPA / pageSize); err != nil && !errors.Is(err, errManyTables) {
		return nil, err
	}
	var best []pagetable.Extent
	most := uint64(0)
	for _, list := range byDistance {
		n := uint64(0)
		for _, x := range list {
			n += x.Count
		}
		if n > most {
			best, most = list, n
		}
	}
	slices.SortFunc(best, func(a, b pagetable.Extent) int { return cmp.Compare(a.Page, b.Page) })
	return best, nil
}

// errManyTables ends the walk of tables that a hostile guest may have made.
var errManyTables = errors.New("too many page tables")
