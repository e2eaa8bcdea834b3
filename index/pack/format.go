package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	formatVersion = 1
	// tierVersion is that of packs with clusters, or with units of LZ4.
	tierVersion = 2
	headerMagic = "thawpack"
	footerMagic = "thawfoot"
	headerSize  = 32
	footerSize  = 96
	crcSize     = 4
)

var errChecksum = errors.New("checksum does not match")

// crcTable is made once; crc32.MakeTable hands out the same table each time for this polynomial.
var crcTable = crc32.MakeTable(crc32.Castagnoli)

// Salts make the checksums of different kinds differ, so that right bytes in a wrong place do not
// pass.
const (
	saltUnit    = 0x9E3779B97F4A7C15
	saltRecord  = 0xC2B2AE3D27D4EB4F
	saltFrame   = 0x165667B19E3779F9
	saltCluster = 0x27D4EB2F165667C5
)

// checksum is the CRC-32C of b plus a salt of what b is: the item's ordinal in its pack.
func checksum(b []byte, salt uint64, number uint64, ordinal uint32) uint32 {
	return crc32.Checksum(b, crcTable) + uint32(uint64(MakeRef(number, ordinal))*salt>>32)
}

// clusterChecksum is the checksum of a cluster, which also depends on the slots in it: clusters have other
// pages in each generation of a pack, so their ordinals do not say what is in them.
func clusterChecksum(b []byte, number uint64, ordinal uint32, slots []uint32) uint32 {
	sum := uint32(2166136261)
	for _, slot := range slots {
		sum = (sum ^ slot) * 16777619
	}
	return checksum(b, saltCluster, number, ordinal) + sum
}

// header is the first 32 bytes of a pack. It serves a reader that has lost the end of the file,
// and a person with a hex dump; everything needed for reading is in the footer.
type header struct {
	version    uint32
	generation uint32
	number     uint64
}

func (h header) append(b []byte) []byte {
	start := len(b)
	b = append(b, headerMagic...)
	b = binary.LittleEndian.AppendUint32(b, h.version)
	b = binary.LittleEndian.AppendUint32(b, h.generation)
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], crcTable))
}

func parseHeader(b []byte) (header, error) {
	if len(b) != headerSize || string(b[:8]) != headerMagic {
		return header{}, errors.New("no pack header")
	}
	if crc32.Checksum(b[:28], crcTable) != binary.LittleEndian.Uint32(b[28:]) {
		return header{}, errChecksum
	}
	return header{
		version:    binary.LittleEndian.Uint32(b[8:]),
		generation: binary.LittleEndian.Uint32(b[12:]),
		number:     binary.LittleEndian.Uint64(b[16:]),
	}, nil
}

// section is a range of the file with its own checksum.
type section struct {
	off uint64
	len uint32
	crc uint32
}

// footer is the last 96 bytes of a pack.
type footer struct {
	version    uint32
	generation uint32
	number     uint64
	size       uint64 // of the whole file
	slots      uint32
	blocks     uint32
	records    uint32
	frames     uint32
	dir        section
	hashes     section
	id         uint64 // 0: not known
	clusters   uint32
}

func (f footer) append(b []byte) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = le.AppendUint32(b, f.version)
	b = le.AppendUint32(b, f.generation)
	b = le.AppendUint64(b, f.number)
	b = le.AppendUint64(b, f.size)
	for _, n := range [...]uint32{f.slots, f.blocks, f.records, f.frames} {
		b = le.AppendUint32(b, n)
	}
	for _, s := range [...]section{f.dir, f.hashes} {
		b = le.AppendUint64(b, s.off)
		b = le.AppendUint32(b, s.len)
		b = le.AppendUint32(b, s.crc)
	}
	b = le.AppendUint64(b, f.id)
	b = le.AppendUint32(b, f.clusters)
	b = le.AppendUint32(b, crc32.Checksum(b[start:], crcTable))
	return append(b, footerMagic...)
}

// parseFooter checks everything about a footer that can be checked without the rest of the file.
func parseFooter(b []byte, size int64) (footer, error) {
	le := binary.LittleEndian
	if len(b) != footerSize || string(b[88:]) != footerMagic {
		return footer{}, errors.New("no pack footer: the file is truncated, or not a pack")
	}
	if crc32.Checksum(b[:84], crcTable) != le.Uint32(b[84:]) {
		return footer{}, errChecksum
	}
	f := footer{
		version: le.Uint32(b), generation: le.Uint32(b[4:]), number: le.Uint64(b[8:]),
		size:  le.Uint64(b[16:]),
		slots: le.Uint32(b[24:]), blocks: le.Uint32(b[28:]),
		records: le.Uint32(b[32:]), frames: le.Uint32(b[36:]),
		dir:    section{le.Uint64(b[40:]), le.Uint32(b[48:]), le.Uint32(b[52:])},
		hashes: section{le.Uint64(b[56:]), le.Uint32(b[64:]), le.Uint32(b[68:])},
		id:     le.Uint64(b[72:]),
	}
	switch f.version {
	case formatVersion:
	case tierVersion:
		f.clusters = le.Uint32(b[80:])
	default:
		return f, nil // the rest may mean something else; the caller looks at the version
	}
	return f, f.check(size)
}

func (f footer) check(size int64) error {
	switch {
	case size < 0 || f.size != uint64(size) || f.size > MaxBytes:
		return fmt.Errorf("the file has %d bytes, its footer says %d", size, f.size)
	case f.number == 0 || f.number > MaxNumber:
		return fmt.Errorf("pack number %d", f.number)
	case f.slots > MaxSlots || f.blocks > f.slots || f.records > MaxSlots || f.frames > MaxSlots:
		return fmt.Errorf("%d slots, %d blocks, %d records, %d frames",
			f.slots, f.blocks, f.records, f.frames)
	case f.version == formatVersion && f.clusters > 0 || f.clusters > f.slots:
		return fmt.Errorf("%d clusters in format version %d, %d slots", f.clusters, f.version, f.slots)
	case f.dir.off < headerSize || f.dir.off+uint64(f.dir.len) != f.hashes.off:
		return fmt.Errorf("directory at %d+%d", f.dir.off, f.dir.len)
	case uint64(f.hashes.len) != uint64(f.slots)*HashSize:
		return fmt.Errorf("%d bytes of hashes for %d slots", f.hashes.len, f.slots)
	case f.hashes.off+uint64(f.hashes.len) != f.size-footerSize:
		return fmt.Errorf("hashes at %d+%d", f.hashes.off, f.hashes.len)
	}
	return nil
}
