package pack

import (
	"context"
	"fmt"
)

// Keep says what a compaction keeps of a pack. A nil function keeps everything.
type Keep struct {
	Slot   func(slot uint32) bool
	Record func(record int) bool
	Frame  func(frame int) bool
}

func (k Keep) slot(s uint32) bool { return k.Slot == nil || k.Slot(s) }
func (k Keep) record(i int) bool  { return k.Record == nil || k.Record(i) }
func (k Keep) frame(i int) bool   { return k.Frame == nil || k.Frame(i) }

// Rewrite copies what keep says of pack r into w, which must be an empty Writer of the same pack
// number (and, to be of use, of a higher generation). Slots, blocks, records and frames keep their
// numbers, so that nothing which refers to the pack has to change; what is dropped takes no room
// but in the directory. Units kept whole are copied as they are; units kept in part are decoded and
// encoded again. Everything copied is verified on the way. The caller finishes or aborts w.
func Rewrite(ctx context.Context, r *Reader, w *Writer, enc *Encoder, keep Keep) error {
	if r.Number() != w.Number() || w.size != headerSize {
		return fmt.Errorf("rewrite pack %d into pack %d: want an empty pack of the same number",
			r.Number(), w.Number())
	}
	hashes, err := r.Hashes()
	if err != nil {
		return err
	}
	for b := range r.Blocks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rewriteBlock(r, w, enc, b, hashes, keep); err != nil {
			return fmt.Errorf("rewrite block %d: %w", b, err)
		}
	}
	for i := range r.Records() {
		if err := ctx.Err(); err != nil {
			return err
		}
		it := r.dir.records[i]
		err := rewriteItem(r, w, it, &w.dir.records, saltRecord, i, keep.record(i))
		if err != nil {
			return fmt.Errorf("rewrite record %d: %w", i, err)
		}
	}
	for i := range r.Frames() {
		if err := ctx.Err(); err != nil {
			return err
		}
		it := r.dir.frames[i]
		err := rewriteItem(r, w, it, &w.dir.frames, saltFrame, i, keep.frame(i))
		if err != nil {
			return fmt.Errorf("rewrite frame %d: %w", i, err)
		}
	}
	return nil
}

// rewriteBlock copies one block.
func rewriteBlock(r *Reader, w *Writer, enc *Encoder, b int, hashes []Hash, keep Keep) error {
	first, count := r.BlockSlots(b)
	pages := make([]byte, int(count)*PageSize)
	if err := r.ReadBlock(b, pages); err != nil {
		return err
	}
	eb := EncodedBlock{pages: int(count)}
	s, err := enc.get()
	if err != nil {
		return err
	}
	defer enc.put(s)
	for slot := first; slot < first+count; {
		e := r.dir.slots[slot]
		raw := pages[(slot-first)*PageSize:][:e.pages()*PageSize]
		live := 0
		for i := range e.pages() {
			if e.codec != codecDead && keep.slot(slot+uint32(i)) {
				live++
			}
		}
		switch live {
		case 0:
			eb.addDead(e.pages())
		case e.pages():
			// The codec is deterministic, but the bytes at hand are better than new ones: they
			// cost nothing, and were verified a moment ago.
			data := make([]byte, int(e.len))
			if err := r.read(data, int64(e.off)); err != nil {
				return err
			}
			eb.add(e.codec, e.pages(), data[:len(data)-crcSize])
		default:
			for i := range e.pages() {
				if !keep.slot(slot + uint32(i)) {
					eb.addDead(1)
					continue
				}
				c, data := enc.compress(s, raw[i*PageSize:][:PageSize])
				eb.add(c, 1, data)
			}
		}
		slot += uint32(e.pages())
	}
	_, err = w.AppendBlock(&eb, hashes[first:first+count])
	return err
}

// add appends a unit to a block that is put together by hand.
func (b *EncodedBlock) add(c codec, pages int, data []byte) {
	off := len(b.data)
	b.data = append(b.data, data...)
	b.units = append(b.units, encodedUnit{codec: c, pages: pages, off: off, end: len(b.data)})
}

func (b *EncodedBlock) addDead(pages int) { b.add(codecDead, pages, nil) }

// rewriteItem copies one record or frame as it is, or drops it.
func rewriteItem(
	r *Reader, w *Writer, it itemEntry, to *[]itemEntry, salt uint64, i int, keep bool,
) error {
	if it.codec == codecDead || !keep {
		_, err := w.appendItem(to, salt, itemEntry{kind: it.kind, codec: codecDead}, nil)
		return err
	}
	in, err := r.item(r, it, salt, uint32(i))
	if err != nil {
		return r.itemError("what is stored", err)
	}
	_, err = w.appendItem(to, salt, it, in[zstdPrefix:])
	return err
}
