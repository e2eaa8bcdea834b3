package pack

import (
	"encoding/binary"
	"fmt"
)

// ReadPage reads the page in slot into dst, which has 4096 bytes: one read of the blob, one
// checksum, one decoding, no allocation. After an error the content of dst is undefined.
func (r *Reader) ReadPage(slot uint32, dst []byte) error {
	if int(slot) >= len(r.dir.slots) {
		return r.slotError(slot, fmt.Errorf("there are %d", len(r.dir.slots)))
	}
	e := r.dir.slots[slot]
	if e.codec == codecDead {
		return r.slotError(slot, ErrDead)
	}
	s := r.dec.get()
	defer r.dec.scratch.Put(s)
	in := s.in[:zstdPrefix+int(e.len)]
	if err := r.read(in[zstdPrefix:], int64(e.off)); err != nil {
		return err
	}
	return r.unit(s, e, slot, in, e.index(), dst[:PageSize:PageSize])
}

// unit checks and decodes one unit that was read into in (behind zstdPrefix bytes of room), and
// gives dst its pages from page on. slot is the slot of any of its pages, e its entry.
func (r *Reader) unit(
	s *decoderScratch, e slotEntry, slot uint32, in []byte, page int, dst []byte,
) error {
	end := len(in) - crcSize
	want := binary.LittleEndian.Uint32(in[end:])
	first := slot - uint32(e.index())
	if checksum(in[zstdPrefix:end], saltUnit, r.foot.number, first) != want {
		return r.slotError(slot, errChecksum)
	}
	out := dst
	if len(dst) != e.pages()*PageSize || cap(dst) < len(dst)+slack {
		out = s.unit[:e.pages()*PageSize]
	}
	if err := r.dec.decode(e.codec, out, in[:end]); err != nil {
		return r.slotError(slot, err)
	}
	if &dst[0] != &out[0] {
		copy(dst, out[page*PageSize:])
	}
	return nil
}

func (r *Reader) slotError(slot uint32, err error) error {
	return r.corrupt(fmt.Sprintf("slot %d", slot), err)
}

// maxReadBytes bounds one read of the blob by ReadSlots.
const maxReadBytes = 1 << 20

// ReadBlock reads all pages of a block into dst, which has room for them (BlockSlots says how many
// there are): slot first+i goes to dst[i*4096:]. The bytes of dead slots are undefined. One read
// of the blob, every unit decoded once.
func (r *Reader) ReadBlock(block int, dst []byte) error {
	if block < 0 || block >= len(r.dir.blocks) {
		err := fmt.Errorf("there are %d", len(r.dir.blocks))
		return r.corrupt(fmt.Sprintf("block %d", block), err)
	}
	first, count := r.BlockSlots(block)
	if len(dst) < int(count)*PageSize {
		return fmt.Errorf("read block %d of pack %s: %d bytes for %d pages",
			block, r.name, len(dst), count)
	}
	return r.ReadSlots(first, dst[:int(count)*PageSize])
}

// ReadSlots reads consecutive slots from first on into dst, whose size in pages says how many: slot
// first+i goes to dst[i*4096:]. The bytes of dead slots are undefined. Slots that lie together
// are read together, up to 1 MiB at a time, and every unit is decoded once.
func (r *Reader) ReadSlots(first uint32, dst []byte) error { return r.readSlots(r, first, dst) }

// stored gives bytes of the file: from the blob, or from what was fetched of it.
type stored interface {
	read(b []byte, off int64) error
}

// readSlots is ReadSlots out of what src has.
func (r *Reader) readSlots(src stored, first uint32, dst []byte) error {
	if len(dst)%PageSize != 0 {
		return fmt.Errorf("read slots of pack %s: %d bytes are not pages", r.name, len(dst))
	}
	end, err := r.endOf(first, len(dst)/PageSize)
	if err != nil {
		return err
	}
	dst = dst[:len(dst):len(dst)] // decoding may go beyond a page, but not beyond dst
	s := r.dec.get()
	defer r.dec.scratch.Put(s)
	for slot := first; slot < end; {
		if r.Dead(slot) {
			slot++
			continue
		}
		stop, last := r.together(slot, end)
		e := r.dir.slots[slot]
		s.in = grown(s.in, zstdPrefix+int(last-e.off))
		if err := src.read(s.in[zstdPrefix:], int64(e.off)); err != nil {
			return err
		}
		if err := r.units(s, slot, stop, e.off, dst[(slot-first)*PageSize:]); err != nil {
			return err
		}
		slot = stop
	}
	return nil
}

// endOf is the slot behind count slots from first on, all of which must be there.
func (r *Reader) endOf(first uint32, count int) (end uint32, err error) {
	if n := uint64(first) + uint64(count); n > uint64(len(r.dir.slots)) {
		return 0, r.slotError(uint32(n-1), fmt.Errorf("there are %d", len(r.dir.slots)))
	}
	return first + uint32(count), nil
}

// together finds the slots from slot on, below end, whose units follow one another in the file, and
// where in the file the last of them ends.
func (r *Reader) together(slot, end uint32) (stop, last uint32) {
	start := r.dir.slots[slot].off
	last = start
	for stop = slot; stop < end; stop++ {
		e := r.dir.slots[stop]
		if e.codec == codecDead || e.off > last || (stop > slot && last-start > maxReadBytes) {
			break
		}
		last = e.off + uint32(e.len)
	}
	return stop, last
}

// units decodes the slots from slot to stop, whose units were read into s.in from offset off on.
// The ten bytes before a unit are overwritten when it is decoded: they belong to units that were
// decoded before.
func (r *Reader) units(s *decoderScratch, slot, stop, off uint32, dst []byte) error {
	for slot < stop {
		e := r.dir.slots[slot]
		n := min(stop-slot, uint32(e.pages()-e.index()))
		at := e.off - off
		in := s.in[at : at+zstdPrefix+uint32(e.len)]
		if err := r.unit(s, e, slot, in, e.index(), dst[:n*PageSize]); err != nil {
			return err
		}
		dst = dst[n*PageSize:]
		slot += n
	}
	return nil
}
