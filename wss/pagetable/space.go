package pagetable

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sort"
)

// Region maps guest-physical memory to the image: the Bytes from address GPA on are at Offset. All
// three are in bytes and multiples of 4096.
type Region struct {
	GPA    uint64 `json:"gpa"`
	Bytes  uint64 `json:"bytes"`
	Offset uint64 `json:"offset"`
}

// Root is the uppermost table of an address space.
type Root struct {
	GPA    uint64
	Levels int // 4 or 5
}

// Space is guest-physical memory that is stored in an image.
type Space struct {
	r        io.ReaderAt
	regions  []Region // ascending by GPA; a dump may have a million
	byOffset []Region // the same, ascending by Offset
	pages    uint64   // of the image
}

// NewSpace returns the memory in an image of the given number of pages. Without regions the image is
// guest-physical memory byte for byte. r may be read by several goroutines at once.
func NewSpace(r io.ReaderAt, pages uint64, regions []Region) (*Space, error) {
	s := &Space{r: r, regions: slices.Clone(regions), pages: pages}
	if len(s.regions) == 0 {
		s.regions = []Region{{0, pages * PageSize, 0}}
	}
	slices.SortFunc(s.regions, func(a, b Region) int { return cmp.Compare(a.GPA, b.GPA) })
	end := uint64(0)
	for _, x := range s.regions {
		if (x.GPA|x.Bytes|x.Offset)%PageSize != 0 || x.GPA < end || x.Bytes > 1<<52 || x.GPA > 1<<52 ||
			x.Offset > pages*PageSize || x.Bytes > pages*PageSize-x.Offset {
			return nil, fmt.Errorf("a region of %d bytes at %#x cannot be at offset %d of an image of %d pages",
				x.Bytes, x.GPA, x.Offset, pages)
		}
		end = x.GPA + x.Bytes
	}
	s.regions = slices.DeleteFunc(s.regions, func(x Region) bool { return x.Bytes == 0 })
	s.byOffset = slices.Clone(s.regions)
	slices.SortFunc(s.byOffset, func(a, b Region) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(b.GPA, a.GPA))
	})
	return s, nil
}

// page returns the page of the image for a guest-physical frame; ok is false if there is none.
func (s *Space) page(frame uint64) (page uint64, ok bool) {
	i := s.regionFrom(frame)
	if i == len(s.regions) || s.regions[i].GPA/PageSize > frame {
		return 0, false
	}
	x := s.regions[i]
	return x.Offset/PageSize + frame - x.GPA/PageSize, true
}

// regionFrom is the first region that has a frame or lies behind it.
func (s *Space) regionFrom(frame uint64) int {
	return sort.Search(len(s.regions), func(i int) bool {
		return (s.regions[i].GPA+s.regions[i].Bytes)/PageSize > frame
	})
}

// frame is the inverse of page. Where regions have a part of the image in common it has one of their
// frames, or none.
func (s *Space) frame(page uint64) (frame uint64, ok bool) {
	i := sort.Search(len(s.byOffset), func(i int) bool { return s.byOffset[i].Offset/PageSize > page }) - 1
	if i < 0 || page-s.byOffset[i].Offset/PageSize >= s.byOffset[i].Bytes/PageSize {
		return 0, false
	}
	x := s.byOffset[i]
	return x.GPA/PageSize + page - x.Offset/PageSize, true
}

// ReadTable implements Memory.
func (s *Space) ReadTable(frame uint64, t *Table) (ok bool, err error) {
	page, ok := s.page(frame)
	if !ok {
		return false, nil
	}
	if n, err := s.r.ReadAt(t[:], int64(page*PageSize)); n < len(t) {
		return false, fmt.Errorf("read page table at page %d: %w", page, err)
	}
	return true, nil
}
