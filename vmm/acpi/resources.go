package acpi

import "slices"

// Resource descriptors (ACPI 6.5, 6.4) list the ports, memory and interrupts that a device uses: the
// value of its _CRS is a buffer of them.

// resources is a buffer of descriptors with its end tag. The checksum in the tag is 0, which means that
// it is not used.
func resources(descriptors ...[]byte) term {
	b := append(slices.Concat(descriptors...), 0x79, 0)
	return enclose(term{0x11}, integer(uint64(len(b))), b)
}

// ports is a range of I/O ports with 16-bit addresses.
func ports(base uint16, count uint8) []byte {
	b := le.AppendUint16([]byte{0x47, 1}, base) // lowest possible base
	b = le.AppendUint16(b, base)                // highest
	return append(b, 1, count)                  // alignment
}

// memory32 is a range of addresses that the guest reads and writes.
func memory32(base, size uint32) []byte {
	b := le.AppendUint16([]byte{0x86}, 9)
	b = append(b, 1)
	return le.AppendUint32(le.AppendUint32(b, base), size)
}

// edge is an interrupt that is triggered by the rising edge of its line. It is not shared.
func edge(gsi uint32) []byte { return interrupt(gsi, 1<<0|1<<1) }

// level is an interrupt that is pending while its line is high. It is not shared.
func level(gsi uint32) []byte { return interrupt(gsi, 1<<0) }

func interrupt(gsi uint32, flags byte) []byte {
	b := le.AppendUint16([]byte{0x89}, 6)
	return le.AppendUint32(append(b, flags, 1), gsi)
}
