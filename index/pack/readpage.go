package pack

import (
	"encoding/binary"
	"fmt"
)

// ReadPage reads the page in slot into dst, which has 4096 bytes: one read of the blob, one
// checksum, one decoding, no allocation. After an error the content of dst is undefined.
func (r *Reader) ReadPage(slot uint32, dst []byte) error { return r.readPage(r, slot, dst) }

// readPage is ReadPage out of what src has.
func (r *Reader) readPage(src stored, slot uint32, dst []byte) error {
	if int(slot) >= len(r.dir.slots) {
		return r.slotError(slot, fmt.Errorf("there are %d", len(r.dir.slots)))
	}
	e := r.dir.slots[slot]
	if e.codec == codecDead {
		return r.slotError(slot, ErrDead)
	}
	s := r.dec.get()
	defer r.dec.scratch.Put(s)
	if e.codec == codecClustered {
		return r.clusterPage(src, s, e, dst[:PageSize])
	}
	in := s.in[:zstdPrefix+int(e.len)]
	if err := src.read(in[zstdPrefix:], int64(e.off)); err != nil {
		return err
	}
	return r.unit(s, e, slot, in, e.index(), dst[:PageSize:PageSize])
}

// unit checks and decodes one unit that was read into in (behind zstdPrefix bytes of room), and
// copies its pages from page on into dst. slot is the slot of any of its pages, e its entry.
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
	if len(dst) != e.pages()*PageSize || e.codec == codecZstd && cap(dst) < len(dst)+slack {
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
