package linux

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// guestMemory is guest RAM that keeps the pages that were written, and refuses what is not RAM.
type guestMemory struct {
	ram    []Range
	pages  map[uint64]*[pageSize]byte
	writes int
	fail   int // the write that fails, counted from 1; 0: none
}

var errInjected = errors.New("injected")

func newGuestMemory(ram []Range) *guestMemory {
	return &guestMemory{ram: ram, pages: map[uint64]*[pageSize]byte{}}
}

func (m *guestMemory) WriteAt(p []byte, off int64) (int, error) {
	m.writes++
	if m.writes == m.fail {
		return 0, errInjected
	}
	if !inside(m.ram, Range{uint64(off), uint64(len(p))}) {
		return 0, fmt.Errorf("write of %#x bytes at %#x: not RAM", len(p), off)
	}
	for addr, rest := uint64(off), p; len(rest) > 0; {
		part := rest[:min(uint64(len(rest)), pageSize-addr%pageSize)]
		page := m.pages[addr/pageSize]
		if page == nil && len(bytes.Trim(part, "\x00")) > 0 {
			page = new([pageSize]byte)
			m.pages[addr/pageSize] = page
		}
		if page != nil {
			copy(page[addr%pageSize:], part)
		}
		addr, rest = addr+uint64(len(part)), rest[len(part):]
	}
	return len(p), nil
}

// read returns bytes of guest memory; what was never written is 0.
func (m *guestMemory) read(addr, size uint64) []byte {
	var b []byte
	for uint64(len(b)) < size {
		page := m.pages[addr/pageSize]
		if page == nil {
			page = new([pageSize]byte)
		}
		b = append(b, page[addr%pageSize:]...)
		addr += pageSize - addr%pageSize
	}
	return b[:size]
}

func inside(ranges []Range, r Range) bool {
	for _, x := range ranges {
		if r.Start >= x.Start && r.Size <= x.Size && r.Start-x.Start <= x.Size-r.Size {
			return true
		}
	}
	return false
}

func overlap(a, b Range) bool { return a.Start < b.End() && b.Start < a.End() }

// ramOf is so much RAM, laid out around the hole as package vmm does.
func ramOf(size uint64) []Range {
	if size <= 3*gib {
		return []Range{{0, size}}
	}
	return []Range{{0, 3 * gib}, {4 * gib, size - 3*gib}}
}

// checkEntry verifies what holds for every kernel that was loaded.
func checkEntry(t testing.TB, m *guestMemory, e Entry) {
	t.Helper()
	low := Range{0, mib}
	if overlap(e.Kernel, low) || !inside(m.ram, e.Kernel) || e.Kernel.End() > mapped {
		t.Errorf("kernel at %#x", e.Kernel)
	}
	if e.Initrd.Size > 0 && (overlap(e.Initrd, low) || overlap(e.Initrd, e.Kernel) ||
		!inside(m.ram, e.Initrd) || e.Initrd.Start%pageSize != 0) {
		t.Errorf("initrd at %#x, kernel at %#x", e.Initrd, e.Kernel)
	}
	if e.Regs.RIP < e.Kernel.Start || e.Regs.RIP >= e.Kernel.End() {
		t.Errorf("entry %#x is outside of the kernel %#x", e.Regs.RIP, e.Kernel)
	}
	zero := m.read(e.Regs.RSI, zeroPageSize)
	count := int(zero[bpE820Entries])
	last := uint64(0)
	for i := range count {
		entry := zero[bpE820Table+i*e820EntrySize:]
		start, size := le.Uint64(entry), le.Uint64(entry[8:])
		if start < last || size == 0 {
			t.Errorf("memory map: entry %d has %#x bytes at %#x, the one before ends at %#x", i, size,
				start, last)
		}
		last = start + size
	}
	if zero[hdrTypeOfLoader] != loaderUnknown || string(zero[hdrMagic:hdrMagic+4]) != "HdrS" {
		t.Error("zero page without the setup header, or without a loader")
	}
}
