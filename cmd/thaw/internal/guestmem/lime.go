package guestmem

import (
	"context"
	"encoding/binary"
)

// A LiME dump is ranges of memory, in the order of their addresses, each behind a header of 32 bytes,
// little endian:
//
//	0   4  0x4C694D45
//	4   4  version: 1
//	8   8  address of the first byte
//	16  8  address of the last byte
//	24  8  zero
//
// The modes "raw" and "padded" of LiME have no headers: "padded" is a bare file, and "raw" is one without
// the gaps, which only the user can know.

const (
	limeMagic  = 0x4C694D45
	limeHeader = 32
	aLimeDump  = "a LiME dump"
)

// walkLime goes through a dump.
func walkLime(in *input, to sink) (list []Region) {
	var order ascending
	for n := 0; in.more(); n++ {
		at, size := limeRange(in, n)
		if in.err == nil {
			in.fail(order.next(at, size))
		}
		if in.err != nil {
			return nil
		}
		to.data(in, at, size)
		if list = addRegion(list, at, size); len(list) > maxSegments {
			in.failf("it has more than %d ranges, and a machine some dozen", maxSegments)
			return nil
		}
	}
	if len(list) == 0 {
		in.fail(errNothing)
	}
	return list
}

// limeRange reads the header of range number n.
func limeRange(in *input, n int) (at, size int64) {
	var h [limeHeader]byte
	in.read(h[:])
	first, last := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[16:])
	switch {
	case in.err != nil:
	case binary.LittleEndian.Uint32(h[:]) != limeMagic:
		in.failf("range %d, at byte %d, does not begin with the magic", n, in.off-limeHeader)
	case binary.LittleEndian.Uint32(h[4:]) != 1:
		in.failf("it has version %d, and only 1 is known", binary.LittleEndian.Uint32(h[4:]))
	case first > last || last >= MaxSize:
		in.failf("range %d is from %#x to %#x", n, first, last)
	}
	return int64(first), int64(last - first + 1)
}

// addRegion adds memory whose offset in the image is its address, in whole pages.
func addRegion(list []Region, at, n int64) []Region {
	from, end := uint64(at)/PageSize*PageSize, uint64(roundUp(at+n))
	if k := len(list); k > 0 && list[k-1].GPA+list[k-1].Bytes >= from {
		x := &list[k-1]
		x.Bytes = max(x.GPA+x.Bytes, end) - x.GPA
		return list
	}
	return append(list, Region{from, end - from, from})
}

// sizeOf is the size of an image of such regions.
func sizeOf(list []Region) int64 {
	if len(list) == 0 {
		return 0
	}
	last := list[len(list)-1]
	return int64(last.GPA + last.Bytes)
}

// limeReading says why no VMM goes on from a dump.
const limeReading = "a LiME dump has no state of the processors and devices"

func openLime(ctx context.Context, f *file) (*Saved, error) {
	in := newInput(ctx, f, 0)
	var m mapper
	list := walkLime(in, &m)
	if in.err != nil {
		return nil, &FormatError{Path: f.path, Format: aLimeDump, Why: "it cannot be read", Err: in.err}
	}
	mem, err := newPieces(f, m.list, sizeOf(list))
	if err != nil {
		return nil, &FormatError{Path: f.path, Format: aLimeDump, Why: err.Error()}
	}
	return &Saved{Format: "lime", Path: f.path, Memory: mem, Regions: list, Reading: limeReading,
		Saw: "a LiME dump with " + counted(len(m.list), "range") + " of memory"}, nil
}

func streamLime(in *input) *Saved {
	return &Saved{Format: "lime", Path: in.path, Saw: aLimeDump, Reading: limeReading,
		Stream: streamFunc(func(ctx context.Context, put func(uint64, []byte) error) (End, error) {
			to := newFeeder(ctx, put)
			list := walkLime(in, to)
			in.fail(to.flush())
			if in.err != nil {
				return End{}, &FormatError{Path: in.path, Format: aLimeDump, Why: "it cannot be read", Err: in.err,
					Do: onlyFileHint(in.err)}
			}
			return End{Size: sizeOf(list), Regions: list}, nil
		})}
}
