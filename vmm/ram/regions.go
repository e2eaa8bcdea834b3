package ram

import (
	"fmt"
	"slices"

	"github.com/thawfs/thaw/wss"
)

const pageSize = wss.PageSize

// The memory of a guest lies from address 0 on, with a hole below 4 GiB if there is so much of it.
const (
	holeStart = 0xc000_0000
	holeEnd   = 0x1_0000_0000

	// MinMemory is the least RAM of a machine, in bytes.
	MinMemory = 8 << 20
	// MaxMemory is the most: the page tables that a guest program gets for it still fit below the hole.
	MaxMemory = 1 << 40
	// MaxImage is the size of the largest image.
	MaxImage = holeEnd + MaxMemory
)

// Region is a piece of guest physical memory that is RAM.
type Region struct {
	GPA  uint64 `json:"gpa"`  // guest physical address, and offset in the image
	Size uint64 `json:"size"` // bytes
}

// End is the first address after the region.
func (r Region) End() uint64 { return r.GPA + r.Size }

// Layout lays out so many bytes of RAM.
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

// ImageSize is the size of the memory file for these regions.
func ImageSize(regions []Region) uint64 { return regions[len(regions)-1].End() }

// Total is how much of the image is RAM.
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

// CheckLayout verifies regions that come out of a file: the only layouts are those of Layout.
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
		return fmt.Errorf("regions of RAM %#x, expected %#x", regions, want)
	}
	return nil
}
