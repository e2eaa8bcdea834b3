package linux

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Range is a piece of the guest's physical address space.
type Range struct{ Start, Size uint64 }

// End is the first address after the range.
func (r Range) End() uint64 { return r.Start + r.Size }

const (
	pageSize = 4096
	// maxAddress bounds all physical addresses: no x86-64 CPU has more than 52 bits.
	maxAddress = 1 << 52
	// mapped is the end of the memory that the loader's page tables map; all boot data is below.
	mapped = 4 * gib
)

// Ranges of the first MiB that are not usable RAM, as on a PC, whatever the machine has there. The
// kernel searches them for firmware tables, and expects that the memory map reserves them.
var (
	extendedBIOS = Range{0x9_fc00, 0x400}
	screenAndROM = Range{0xa_0000, 0x4_0000} // in no entry of the map
	firmware     = Range{0xe_0000, 0x2_0000} // the ACPI tables
)

// e820Kind is the type of an entry of the memory map.
type e820Kind uint32

const (
	e820RAM      e820Kind = 1
	e820Reserved e820Kind = 2
)

type e820Entry struct {
	Range
	kind e820Kind
}

// memoryMap is the memory that the kernel is told about.
type memoryMap struct {
	usable []Range     // ascending, not adjacent
	e820   []e820Entry // usable and reserved ranges, ascending
	total  uint64      // bytes of RAM, reserved ranges included
}

func newMemoryMap(ram []Range) (memoryMap, error) {
	var m memoryMap
	ram = slices.Clone(ram)
	slices.SortFunc(ram, func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	for i, r := range ram {
		switch {
		case r.Size == 0 || r.Start > maxAddress || r.Size > maxAddress-r.Start:
			return m, fmt.Errorf("RAM: %#x bytes at %#x are not possible", r.Size, r.Start)
		case r.Start%pageSize != 0 || r.Size%pageSize != 0:
			return m, fmt.Errorf("RAM: %#x bytes at %#x are not whole pages", r.Size, r.Start)
		case i > 0 && r.Start < ram[i-1].End():
			return m, fmt.Errorf("RAM: ranges at %#x and %#x overlap", ram[i-1].Start, r.Start)
		}
		m.total += r.Size
	}
	if len(ram) == 0 || ram[0].Start != 0 || ram[0].Size < mib {
		return m, errors.New("RAM: the first MiB is missing, which is needed for the boot data")
	}
	m.usable = subtract(merge(ram), screenAndROM)
	for _, r := range []Range{extendedBIOS, firmware} {
		m.usable = subtract(m.usable, r)
		m.e820 = append(m.e820, e820Entry{r, e820Reserved})
	}
	for _, r := range m.usable {
		m.e820 = append(m.e820, e820Entry{r, e820RAM})
	}
	slices.SortFunc(m.e820, func(a, b e820Entry) int { return cmp.Compare(a.Start, b.Start) })
	return m, nil
}

// merge joins sorted ranges that are adjacent or overlap.
func merge(sorted []Range) (list []Range) {
	for _, r := range sorted {
		if n := len(list); n > 0 && r.Start <= list[n-1].End() {
			list[n-1].Size = max(list[n-1].End(), r.End()) - list[n-1].Start
			continue
		}
		list = append(list, r)
	}
	return list
}

// subtract removes a range from others.
func subtract(ranges []Range, hole Range) (list []Range) {
	for _, r := range ranges {
		if below := min(r.End(), hole.Start); below > r.Start {
			list = append(list, Range{r.Start, below - r.Start})
		}
		if above := max(r.Start, hole.End()); above < r.End() {
			list = append(list, Range{above, r.End() - above})
		}
	}
	return list
}

// highest finds the highest page-aligned range of size bytes that ends at limit or below, is above the
// first MiB, and does not overlap with the kernel.
func (m memoryMap) highest(size, limit uint64, kernel Range) (Range, bool) {
	free := subtract(subtract(m.usable, kernel), Range{0, mib})
	for _, r := range slices.Backward(free) {
		end := min(r.End(), limit)
		if end < r.Start || end-r.Start < size {
			continue
		}
		if start := (end - size) &^ (pageSize - 1); start >= r.Start {
			return Range{start, size}, true
		}
	}
	return Range{}, false
}

// alignUp rounds up to a multiple of to, a power of two. Addresses are below maxAddress, so there is no
// overflow.
func alignUp(addr, to uint64) uint64 { return (addr + to - 1) &^ (to - 1) }
