package acpi

import "encoding/binary"

// All tables except the DSDT are structures of fixed layout.

// header is the header of every table except the RSDP.
type header struct {
	Signature       [4]byte
	Length          uint32 // of the whole table
	Revision        uint8
	Checksum        uint8 // makes the sum of all bytes 0
	OEMID           [6]byte
	OEMTableID      [8]byte
	OEMRevision     uint32
	Creator         [4]byte
	CreatorRevision uint32
}

const (
	headerSize     = 36
	checksumOffset = 9
)

var (
	oemID      = [6]byte{'T', 'H', 'A', 'W', ' ', ' '}
	oemTableID = [8]byte{'T', 'H', 'A', 'W', 'V', 'M', ' ', ' '}
	creator    = [4]byte{'T', 'H', 'A', 'W'}
)

// table returns a table with a header and a body.
func table(signature string, revision uint8, body []byte) []byte {
	h := header{Length: uint32(headerSize + len(body)), Revision: revision, OEMID: oemID,
		OEMTableID: oemTableID, OEMRevision: 1, Creator: creator, CreatorRevision: 1}
	copy(h.Signature[:], signature)
	b := append(pack(h), body...)
	b[checksumOffset] = checksum(b)
	return b
}

// pack encodes a structure of fixed-width fields, without padding.
func pack(v any) []byte {
	b, err := binary.Append(nil, le, v)
	if err != nil {
		panic("acpi: " + err.Error()) // a field without a width: a mistake in this package
	}
	return b
}

// checksum returns the byte that makes the sum of all bytes 0. In b its place must be 0.
func checksum(b []byte) (sum byte) {
	for _, x := range b {
		sum -= x
	}
	return sum
}

const rsdpSize = 36

// rsdp is the root system description pointer of ACPI 2.0 and later.
func rsdp(xsdt uint64) []byte {
	b := pack(struct {
		Signature        [8]byte
		Checksum         uint8 // of the first 20 bytes
		OEMID            [6]byte
		Revision         uint8
		RSDT             uint32 // for ACPI 1.0: there is none
		Length           uint32
		XSDT             uint64
		ExtendedChecksum uint8 // of all
		Reserved         [3]uint8
	}{Signature: [8]byte([]byte("RSD PTR ")), OEMID: oemID, Revision: 2, Length: rsdpSize, XSDT: xsdt})
	b[8] = checksum(b[:20])
	b[32] = checksum(b)
	return b
}

// xsdt lists the addresses of the other tables.
func xsdt(addrs ...uint64) []byte {
	const revision = 1
	return table("XSDT", revision, pack(addrs))
}

// madt is the multiple APIC description table.
func madt(c Config) []byte {
	const revision, pcat = 5, 1 << 0 // pcat: there are also the two 8259 of a PC
	b := pack(struct{ LocalAPIC, Flags uint32 }{c.LocalAPIC, pcat})
	for i := range c.CPUs {
		b = append(b, pack(struct {
			Type, Length, ProcessorUID, APICID uint8
			Flags                              uint32 // enabled
		}{0, 8, uint8(i), uint8(i), 1 << 0})...)
	}
	b = append(b, pack(struct {
		Type, Length, ID, Reserved uint8
		Address, FirstGSI          uint32
	}{1, 12, 0, 0, c.IOAPIC, 0})...)
	if c.TimerGSI != 0 {
		b = append(b, pack(struct {
			Type, Length, Bus, Source uint8 // ISA, the timer's line
			GSI                       uint32
			Flags                     uint16 // polarity and trigger as on the bus: high, edge
		}{2, 10, 0, 0, c.TimerGSI, 0})...)
	}
	b = append(b, pack(struct {
		Type, Length, ProcessorUID uint8 // all CPUs
		Flags                      uint16
		Input                      uint8 // LINT1
	}{4, 6, 0xff, 0, 1})...)
	return table("APIC", revision, b)
}
