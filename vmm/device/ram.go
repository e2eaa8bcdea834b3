package device

import (
	"encoding/binary"
	"fmt"
)

var le = binary.LittleEndian

// Range is a run of guest physical addresses.
type Range struct{ Base, Size uint64 }

// RAM is guest memory with its bounds, for devices that get addresses from the guest. A guest may write
// any address into a descriptor. If it is out of bounds, the guest is wrong, and the device asks to be
// reset. So an error of [Memory] itself is never the guest's fault, and ends the machine.
type RAM struct {
	mem    Memory
	ranges []Range
}

// NewRAM makes a RAM from a Memory and the ranges of its addresses.
func NewRAM(mem Memory, ranges ...Range) *RAM { return &RAM{mem, ranges} }

// contains says whether all of size bytes at an address are RAM.
func (r *RAM) contains(addr, size uint64) bool {
	for _, in := range r.ranges {
		if addr >= in.Base && addr-in.Base < in.Size {
			return size <= in.Size-(addr-in.Base)
		}
	}
	return false
}

func (r *RAM) read(addr uint64, p []byte) error { return r.access("read", r.mem.ReadAt, addr, p) }

func (r *RAM) write(addr uint64, p []byte) error { return r.access("write", r.mem.WriteAt, addr, p) }

func (r *RAM) access(op string, do func(p []byte, off int64) (int, error), addr uint64, p []byte) error {
	if !r.contains(addr, uint64(len(p))) {
		return askReset("%d bytes at %#x are not RAM", len(p), addr)
	}
	if n, err := do(p, int64(addr)); n < len(p) {
		return fmt.Errorf("%s %d bytes of guest memory at %#x: %w", op, len(p), addr, err)
	}
	return nil
}

func (r *RAM) read16(addr uint64) (uint16, error) {
	var b [2]byte
	err := r.read(addr, b[:])
	return le.Uint16(b[:]), err
}

// resetError says why a device asks to be reset: its driver has broken the rules. Until the reset the
// guest cannot use the device; the rest of the machine is not affected.
type resetError struct{ what string }

func (e *resetError) Error() string { return e.what }

func askReset(format string, args ...any) error {
	return &resetError{fmt.Sprintf(format, args...)}
}
