package pack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/thawfs/thaw/index/blob"
)

// BadSlots says which slots could not be read: dead ones, those that do not exist, damaged ones, those
// on a bad sector. The bytes of their pages are zero. It may be used again and
// again, and keeps its memory.
type BadSlots struct {
	r      *Reader
	slots  []uint32 // ascending
	causes []error  // of each; nil: it is dead
}

func (b *BadSlots) reset(r *Reader) {
	b.r, b.slots, b.causes = r, b.slots[:0], b.causes[:0]
}

func (b *BadSlots) add(first, end uint32, cause error) {
	for slot := first; slot < end; slot++ {
		b.slots = append(b.slots, slot)
		b.causes = append(b.causes, cause)
	}
}

// Slots returns them, ascending, until the next read.
func (b *BadSlots) Slots() []uint32 { return b.slots }

// Err says why a slot could not be read; nil for one that could.
func (b *BadSlots) Err(slot uint32) error {
	i, ok := slices.BinarySearch(b.slots, slot)
	if !ok {
		return nil
	}
	if b.causes[i] == nil {
		return b.r.slotError(slot, ErrDead)
	}
	return b.causes[i]
}

// sort brings the slots into their order, where they were not found in it.
func (b *BadSlots) sort() {
	if slices.IsSorted(b.slots) {
		return
	}
	order := make([]int, len(b.slots))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(b.slots[i], b.slots[j]) })
	slots, causes := slices.Clone(b.slots), slices.Clone(b.causes)
	for to, from := range order {
		b.slots[to], b.causes[to] = slots[from], causes[from]
	}
}

// Fail makes count slots from first on bad for one reason.
func (b *BadSlots) Fail(r *Reader, first uint32, count int, cause error) {
	b.reset(r)
	b.add(first, first+uint32(count), cause)
}

// Append adds what other says of slots behind those in b.
func (b *BadSlots) Append(other *BadSlots) {
	b.r = other.r
	b.slots = append(b.slots, other.slots...)
	b.causes = append(b.causes, other.causes...)
}

// local says whether a read failed because of its place, so that bytes beside it may be readable: a bad
// sector, the end of a truncated file, or bytes that are not what was written, as the blob store says.
func local(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, blob.ErrDamaged)
}

// maxReadBytes bounds one read of the blob by ReadSlots.
const maxReadBytes = 1 << 20

// IsDamage says whether an error is about stored bytes, so that the next read fails as well: they are
// not what was written, or lie on a bad sector.
func IsDamage(err error) bool {
	var c *CorruptError
	return errors.As(err, &c) || local(err)
}

// ReadSlots reads consecutive slots from first on into dst, as many as it has whole pages for: slot
// first+i goes to dst[i*4096:]. Slots that lie together are read together, up to 1 MiB at a time,
// and every unit and cluster is decoded once. Slots that cannot be read are noted in bad and become zeros;
// the others are still read.
func (r *Reader) ReadSlots(first uint32, dst []byte, bad *BadSlots) {
	r.readSlots(r, first, dst, bad)
}

// stored returns bytes of the file, from the blob or from what was fetched of it.
type stored interface {
	read(b []byte, off int64) error
}

// readSlots is ReadSlots out of what src has.
func (r *Reader) readSlots(src stored, first uint32, dst []byte, bad *BadSlots) {
	bad.reset(r)
	stop := first + uint32(len(dst)/PageSize)
	end := max(min(stop, uint32(len(r.dir.slots))), first)
	dst = dst[:len(dst):len(dst)] // decoding may go beyond a page, but not beyond dst
	s := r.dec.get()
	defer r.dec.scratch.Put(s)
	r.blockSlots(src, s, first, dst[:(end-first)*PageSize], bad, true)
	for slot := end; slot < stop; slot++ {
		bad.add(slot, slot+1, r.slotError(slot, fmt.Errorf("there are %d", len(r.dir.slots))))
	}
	for _, slot := range bad.slots {
		clear(dst[(slot-first)*PageSize:][:PageSize])
	}
}

// blockSlots reads slots which there are. Those that lie in clusters are read as well, or they are as dead
// ones.
func (r *Reader) blockSlots(src stored, s *decoderScratch, first uint32, dst []byte, bad *BadSlots,
	clusters bool) {
	end := first + uint32(len(dst)/PageSize)
	later := false
	for slot := first; slot < end; {
		e, next := r.dir.slots[slot], slot+1
		switch {
		case e.inBlock():
			next = r.stretch(src, s, slot, end, dst[(slot-first)*PageSize:], bad)
		case e.codec == codecClustered && clusters:
			later = true
		default:
			bad.add(slot, next, nil)
		}
		slot = next
	}
	if !later {
		return
	}
	// Last, because a unit that is decoded overwrites bytes behind it.
	for slot := first; slot < end; slot++ {
		if r.dir.slots[slot].codec == codecClustered {
			r.clusterSlots(src, s, slot, first, end, dst, bad)
		}
	}
	bad.sort()
}

// stretch reads the slots from slot on, below end, whose units follow one another, and returns
// the slot behind them. If they cannot be read at once they are read one after another.
func (r *Reader) stretch(src stored, s *decoderScratch, slot, end uint32, dst []byte,
	bad *BadSlots) (stop uint32) {
	stop, last := r.together(slot, end)
	off := r.dir.slots[slot].off
	s.in = grown(s.in, zstdPrefix+int(last-off))
	err := src.read(s.in[zstdPrefix:], int64(off))
	if err == nil {
		r.units(s, slot, stop, off, dst, bad)
		return stop
	}
	if _, fetched := src.(*Span); !fetched && !local(err) {
		bad.add(slot, stop, err)
		return stop
	}
	for slot < stop {
		e := r.dir.slots[slot]
		n := min(stop-slot, uint32(e.pages()-e.index()))
		in := s.in[:zstdPrefix+int(e.len)]
		if err := src.read(in[zstdPrefix:], int64(e.off)); err != nil {
			bad.add(slot, slot+n, err)
		} else {
			r.units(s, slot, slot+n, e.off, dst, bad)
		}
		dst = dst[n*PageSize:]
		slot += n
	}
	return stop
}

// together finds the slots from slot on, below end, whose units follow one another in the file, and
// where in the file the last of them ends.
func (r *Reader) together(slot, end uint32) (stop, last uint32) {
	start := r.dir.slots[slot].off
	last = start
	for stop = slot; stop < end; stop++ {
		e := r.dir.slots[stop]
		if !e.inBlock() || e.off > last || (stop > slot && last-start > maxReadBytes) {
			break
		}
		last = e.off + uint32(e.len)
	}
	return stop, last
}

// units decodes the slots from slot to stop, whose units were read into s.in from offset off on.
// The ten bytes before a unit are overwritten when it is decoded: they belong to units that were
// decoded before.
func (r *Reader) units(s *decoderScratch, slot, stop, off uint32, dst []byte, bad *BadSlots) {
	for slot < stop {
		e := r.dir.slots[slot]
		n := min(stop-slot, uint32(e.pages()-e.index()))
		at := e.off - off
		in := s.in[at : at+zstdPrefix+uint32(e.len)]
		if err := r.unit(s, e, slot, in, e.index(), dst[:n*PageSize]); err != nil {
			bad.add(slot, slot+n, err)
		}
		dst = dst[n*PageSize:]
		slot += n
	}
}
