package device

import (
	"fmt"
	"slices"
)

// Bus finds the device at an address. A machine has one bus for ports and one for memory-mapped
// devices. All ranges are added before the machine runs. After that several vCPUs may call Read and
// Write at once; each device does its own locking.
type Bus struct {
	name   string
	ranges []busRange // ascending, without overlap
}

type busRange struct {
	base, last uint64 // first and last address
	handler    Handler
}

// NewBus makes an empty bus. The name appears in its errors.
func NewBus(name string) *Bus { return &Bus{name: name} }

// Name returns the name given to NewBus.
func (b *Bus) Name() string { return b.name }

// Add assigns size addresses from base on to a device. It fails if they overlap with another range.
func (b *Bus) Add(base, size uint64, h Handler) error {
	last := base + size - 1
	if size == 0 || last < base {
		return fmt.Errorf("%s: a range of %#x addresses at %#x", b.name, size, base)
	}
	i := b.after(base)
	for _, r := range b.ranges[max(i-1, 0):min(i+1, len(b.ranges))] {
		if base <= r.last && r.base <= last {
			return fmt.Errorf("%s: %#x..%#x overlaps with %#x..%#x", b.name, base, last, r.base, r.last)
		}
	}
	b.ranges = slices.Insert(b.ranges, i, busRange{base, last, h})
	return nil
}

// after returns the index of the first range that begins after an address.
func (b *Bus) after(addr uint64) int {
	i, _ := slices.BinarySearchFunc(b.ranges, addr, func(r busRange, addr uint64) int {
		if r.base <= addr {
			return -1
		}
		return 1
	})
	return i
}

// find returns the device whose range contains the whole access, and the offset into the range. An
// access across the end of a range has no device.
func (b *Bus) find(addr uint64, size int) (h Handler, off uint64) {
	i := b.after(addr) - 1
	if i < 0 || size == 0 {
		return nil, 0
	}
	r := b.ranges[i]
	if addr > r.last || uint64(size)-1 > r.last-addr {
		return nil, 0
	}
	return r.handler, addr - r.base
}

// Read reads from the device at an address. If there is none, found is false and p is unchanged.
func (b *Bus) Read(addr uint64, p []byte) (found bool, err error) {
	return b.access("read", Handler.Read, addr, p)
}

// Write writes to the device at an address. If there is none, found is false.
func (b *Bus) Write(addr uint64, p []byte) (found bool, err error) {
	return b.access("write", Handler.Write, addr, p)
}

func (b *Bus) access(op string, do func(h Handler, off uint64, p []byte) error, addr uint64, p []byte) (
	found bool, err error) {
	h, off := b.find(addr, len(p))
	if h == nil {
		return false, nil
	}
	if err := do(h, off, p); err != nil {
		return true, fmt.Errorf("%s %#x: %s: %w", b.name, addr, op, err)
	}
	return true, nil
}
