package ram

import (
	"fmt"
	"slices"

	"github.com/thawfs/thaw/wss"
)

const pageSize = wss.PageSize

// The memory of a guest begins at address 0, and leaves out a hole below 4 GiB if it is large enough to
// reach it.
const (
	holeStart = 0xc000_0000
	holeEnd   = 0x1_0000_0000

	// MinMemory is the least RAM of a machine, in bytes.
	MinMemory = 8 << 20
	// MaxMemory is the most RAM of a machine, in bytes: a guest program's page tables for it still fit
	// below the hole.
	MaxMemory = 1 << 40
	// MaxImage is the size of the largest image, in bytes.
	MaxImage = holeEnd + MaxMemory
)

// Region is a piece of guest physical memory that is RAM.
type Region struct {
	GPA  uint64 `json:"gpa"`  // guest physical address, and offset in the image
	Size uint64 `json:"size"` // bytes
}

// End is the first address after the region.
func (r Region) End() uint64 { return r.GPA + r.Size }

// Layout returns the regions for so many bytes of RAM.
func Layout(bytes uint64) ([]Region, error) {
	if bytes < MinMemory || bytes > MaxMemory || bytes%pageSize != 0 {
		return nil, fmt.Errorf("memory of %d bytes: it must be a multiple of %d from %d to %d", bytes,
			pageSize, uint64(MinMemory), uint64(MaxMemory))
	}
	if bytes <= holeStart {
		return []Region{{0, bytes}}, nil
	}
	return []Region{{0, holeStart}, {holeEnd, bytes - holeStart}}, nil
}

// ImageSize returns the size in bytes of the memory file for these regions.
func ImageSize(regions []Region) uint64 { return regions[len(regions)-1].End() }

// Total returns how many bytes of the image are RAM.
func Total(regions []Region) (n uint64) {
	for _, r := range regions {
		n += r.Size
	}
	return n
}

// Contains says whether an address is RAM.
func Contains(regions []Region, gpa uint64) bool {
	for _, r := range regions {
		if gpa >= r.GPA && gpa-r.GPA < r.Size {
			return true
		}
	}
	return false
}

// CheckLayout verifies regions from a file: they must be a result of Layout.
func CheckLayout(regions []Region) error {
	var total uint64
	for _, r := range regions {
		total += min(r.Size, MaxMemory)
	}
	want, err := Layout(total)
	if err != nil {
		return err
	}
	if !slices.Equal(regions, want) {
		return fmt.Errorf("the regions of RAM are %#x, and must be %#x", regions, want)
	}
	return nil
}
