package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// slotEntry is what a read of one page needs to know: eight bytes in RAM for each page of an open
// pack. A page that lies in a cluster has that in the place of a unit.
type slotEntry struct {
	off   uint32 // of the page's unit in the file; the number of its cluster
	len   uint16 // of the unit, its checksum included, 0: the page is dead; the index in its cluster
	codec codec
	pos   uint8 // index of the page in the unit in the low half, pages of the unit - 1 in the high
}

func (e slotEntry) index() int { return int(e.pos & 15) }
func (e slotEntry) pages() int { return int(e.pos>>4) + 1 }

// inBlock says whether the page is stored in its block.
func (e slotEntry) inBlock() bool { return e.codec != codecDead && e.codec != codecClustered }

// blockEntry is a run of slots that lie together in the file.
type blockEntry struct {
	first    uint32 // slot
	off, end uint32
}

// itemEntry is a record or a frame.
type itemEntry struct {
	kind   uint32 // of a record
	codec  codec  // of a record
	raw    uint32 // size of a record in bytes, pages of a frame
	off    uint32
	stored uint32 // checksum included; 0: dropped
}

// directory is where everything in a pack lies.
type directory struct {
	slots   []slotEntry
	blocks  []blockEntry
	records []itemEntry
	frames  []itemEntry

	clusters []clusterEntry
	members  []uint32 // the slots in the clusters, one cluster after another
}

// blockOf returns the number of the block that holds slot, which must be below len(d.slots).
func (d *directory) blockOf(slot uint32) int {
	return sort.Search(len(d.blocks), func(i int) bool { return d.blocks[i].first > slot }) - 1
}

// blockEnd is the slot after the last of block b.
func (d *directory) blockEnd(b int) uint32 {
	if b+1 < len(d.blocks) {
		return d.blocks[b+1].first
	}
	return uint32(len(d.slots))
}

// unitHead is the first number of a unit in the directory: length<<1, plus 1 if a byte follows with
// the codec in its low half and the number of pages - 1 in its high half. Without that byte the
// unit is like the last one that had it: nearly all units of a pack are alike.
func appendUnit(b []byte, length uint16, shape, last byte) []byte {
	if shape == last {
		return binary.AppendUvarint(b, uint64(length)<<1)
	}
	return append(binary.AppendUvarint(b, uint64(length)<<1|1), shape)
}

func unitShape(c codec, pages int) byte { return byte(c) | byte(pages-1)<<4 }

// unitOf returns the pages and the shape of the unit that begins with slot s, below stop. Pages in
// clusters make units of as many as there are side by side.
func (d *directory) unitOf(s, stop uint32) (pages uint32, shape byte) {
	e := d.slots[s]
	pages = uint32(e.pages())
	if e.codec == codecClustered {
		for pages < maxUnitPages && s+pages < stop && d.slots[s+pages].codec == codecClustered {
			pages++
		}
	}
	return pages, unitShape(e.codec, int(pages))
}

// append writes the directory as it stands in the file.
func (d *directory) append(b []byte) []byte {
	last := byte(0)
	var end uint32 = headerSize
	for i, blk := range d.blocks {
		stop := d.blockEnd(i)
		units := 0
		for s := blk.first; s < stop; units++ {
			pages, _ := d.unitOf(s, stop)
			s += pages
		}
		b = binary.AppendUvarint(b, uint64(blk.off-end))
		b = binary.AppendUvarint(b, uint64(units))
		for s := blk.first; s < stop; {
			pages, shape := d.unitOf(s, stop)
			length := d.slots[s].len
			if codec(shape&15) == codecClustered {
				length = 0
			}
			b = appendUnit(b, length, shape, last)
			last = shape
			s += pages
		}
		end = blk.end
	}
	for _, items := range [][]itemEntry{d.records, d.frames} {
		end = headerSize
		for _, it := range items {
			b = binary.AppendUvarint(b, uint64(it.kind))
			b = append(b, byte(it.codec))
			b = binary.AppendUvarint(b, uint64(it.raw))
			b = binary.AppendUvarint(b, uint64(it.stored))
			b = binary.AppendUvarint(b, uint64(it.off-end))
			end = it.off + it.stored
		}
	}
	return d.appendClusters(b)
}

var errDirectory = errors.New("directory is malformed")

// dirReader takes a directory apart. After the first error every number is 0.
type dirReader struct {
	b     []byte
	limit uint64 // where the body of the file ends
	old   bool   // version 1: without clusters, and units of LZ4
	err   error
}

func (r *dirReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errDirectory, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *dirReader) uvarint(max uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > max {
		r.fail("number out of range")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *dirReader) byte() byte {
	if len(r.b) == 0 {
		r.fail("too short")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// parseDirectory is the inverse of append. It bounds what it allocates by the size of b: a page
// that is not in b costs nothing.
func parseDirectory(b []byte, f footer) (*directory, error) {
	r := &dirReader{b: b, limit: f.dir.off, old: f.version == formatVersion}
	// Every block, record and frame takes at least two bytes, every unit one for up to 16 pages.
	if uint64(f.blocks)*2 > uint64(len(b)) || uint64(f.records)*2 > uint64(len(b)) ||
		uint64(f.frames)*2 > uint64(len(b)) || uint64(f.clusters)*minCluster > uint64(len(b)) ||
		uint64(f.slots) > uint64(len(b))*16 {
		return nil, fmt.Errorf("%w: counts do not fit %d bytes", errDirectory, len(b))
	}
	d := &directory{
		slots:  make([]slotEntry, 0, f.slots),
		blocks: make([]blockEntry, 0, f.blocks),
	}
	shape, end := byte(0), uint64(headerSize)
	for range f.blocks {
		shape, end = r.block(d, shape, end, int(f.slots))
	}
	d.records = r.items(int(f.records), maxRecord)
	d.frames = r.items(int(f.frames), MaxFramePages)
	r.clusters(d, int(f.clusters))
	if r.err == nil && len(d.slots) != int(f.slots) {
		r.fail("%d slots, footer says %d", len(d.slots), f.slots)
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return d, r.err
}

func (r *dirReader) block(d *directory, shape byte, end uint64, slots int) (byte, uint64) {
	off := end + r.uvarint(MaxBytes)
	units := r.uvarint(uint64(slots - len(d.slots)))
	if units == 0 {
		r.fail("empty block")
	}
	blk := blockEntry{first: uint32(len(d.slots)), off: uint32(off)}
	slots = min(slots, len(d.slots)+maxBlockPages)
	for range units {
		head := r.uvarint(1<<17 - 1)
		if head&1 != 0 {
			shape = r.byte()
		}
		c, pages, length := codec(shape&15), int(shape>>4)+1, head>>1
		if !c.valid(pages, length) || r.old && c >= codecLZ4 || len(d.slots)+pages > slots || off+length > r.limit {
			r.fail("unit of %d pages, codec %d, %d bytes at %d", pages, c, length, off)
		}
		if r.err != nil {
			return shape, end
		}
		if c == codecClustered {
			d.slots = append(d.slots, slices.Repeat([]slotEntry{nowhere}, pages)...)
			continue
		}
		for i := range pages {
			d.slots = append(d.slots, slotEntry{
				off: uint32(off), len: uint16(length), codec: c, pos: uint8(pages-1)<<4 | uint8(i),
			})
		}
		off += length
	}
	blk.end = uint32(off)
	d.blocks = append(d.blocks, blk)
	return shape, off
}

// items reads n records or frames, none of which is larger than max.
func (r *dirReader) items(n int, max uint64) []itemEntry {
	items := make([]itemEntry, 0, n)
	end := uint64(headerSize)
	for range n {
		it := itemEntry{
			kind:  uint32(r.uvarint(1<<32 - 1)),
			codec: codec(r.byte()),
			raw:   uint32(r.uvarint(max)),
		}
		stored := r.uvarint(MaxBytes)
		off := end + r.uvarint(MaxBytes)
		end = off + stored
		if end > r.limit || it.codec > codecMax {
			r.fail("%d bytes at %d, codec %d", stored, off, it.codec)
		}
		if r.err != nil {
			return nil
		}
		it.off, it.stored = uint32(off), uint32(stored)
		items = append(items, it)
	}
	return items
}
