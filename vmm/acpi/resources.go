package acpi

import "slices"

// Resource descriptors (ACPI 6.5, 6.4) say what of the machine a device uses: the value of its
// _CRS is a buffer of them.

// Descriptor types, and flags of theirs.
const (
	resPorts     = 0x47 // I/O port descriptor: small, 7 bytes follow
	resEnd       = 0x79 // end tag: small, 1 byte follows
	resMemory32  = 0x86 // 32-bit fixed memory range
	resInterrupt = 0x89 // extended interrupt

	portsDecode16   = 1 << 0
	memoryWritable  = 1 << 0
	irqConsumer     = 1 << 0
	irqEdge         = 1 << 1 // otherwise level-triggered
	interruptLength = 6      // flags, count, one number
	memoryLength    = 9
)

// resources is a buffer of descriptors with the tag that ends it. The tag has a checksum; 0 says
// that there is none.
func resources(descriptors ...[]byte) term {
	b := append(slices.Concat(descriptors...), resEnd, 0)
	return enclose(term{opBuffer}, integer(uint64(len(b))), b)
}

// ports is a range of I/O ports.
func ports(base uint16, count uint8) []byte {
	b := le.AppendUint16([]byte{resPorts, portsDecode16}, base) // lowest possible base
	b = le.AppendUint16(b, base)                                // highest
	return append(b, 1, count)                                  // alignment
}

// memory32 is a range of addresses that the guest reads and writes.
func memory32(base, size uint32) []byte {
	b := le.AppendUint16([]byte{resMemory32}, memoryLength)
	b = append(b, memoryWritable)
	return le.AppendUint32(le.AppendUint32(b, base), size)
}

// edge is an interrupt that counts when the line goes up. It is not shared.
func edge(gsi uint32) []byte { return interrupt(gsi, irqConsumer|irqEdge) }

// level is an interrupt that lasts while the line is high. It is not shared.
func level(gsi uint32) []byte { return interrupt(gsi, irqConsumer) }

func interrupt(gsi uint32, flags byte) []byte {
	b := le.AppendUint16([]byte{resInterrupt}, interruptLength)
	return le.AppendUint32(append(b, flags, 1), gsi)
}
