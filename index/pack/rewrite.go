package pack

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// Keep says what a new generation of a pack has of the one before. The zero Keep is all of it, and
// an error where that cannot be copied.
type Keep struct {
	// What is kept. A nil function keeps everything.
	Slot   func(slot uint32) bool
	Record func(record int) bool
	Frame  func(frame int) bool
	// Tier says how each slot that is kept is stored; nil: all stay as they are.
	Tier func(slot uint32) Tier
	// Page returns the page of a slot that is kept and cannot be copied, or that is dead; nil if it
	// has none. It must have the slot's hash.
	Page func(slot uint32) []byte
	// Hashes are those of the new generation; nil: those of the pack, which must be sound then.
	Hashes []Hash
	// Lost is called for what should be kept, cannot be copied, and so becomes dead. Without it the
	// Rewrite fails then.
	Lost func(err error)
	// Step is called again and again, between two parts of the work, by the goroutine that called Rewrite.
	// It may take its time, and its error ends the Rewrite.
	Step func() error
}

func (k Keep) slot(s uint32) bool { return k.Slot == nil || k.Slot(s) }
func (k Keep) record(i int) bool  { return k.Record == nil || k.Record(i) }
func (k Keep) frame(i int) bool   { return k.Frame == nil || k.Frame(i) }

// tierDropped is of slots that are not kept.
const tierDropped Tier = 1<<8 - 1

// tiers asks for the tier of each slot, once.
func (k Keep) tiers(slots int) []Tier {
	tiers := make([]Tier, slots)
	for i := range tiers {
		switch s := uint32(i); {
		case !k.slot(s):
			tiers[i] = tierDropped
		case k.Tier != nil:
			tiers[i] = k.Tier(s)
		}
	}
	return tiers
}

// Rewrite copies what keep says of pack r into w, which must be an empty Writer of the same pack
// number (and, to be of use, of a higher generation). Slots, blocks, records and frames keep their
// numbers, and the pack its identity, so that nothing which refers to the pack has to change; what is
// dropped takes room only in the directory. Units and clusters kept whole are copied as they are; those kept
// in part are decoded and encoded again, and so are those that keep.Tier wants otherwise. Everything that
// is copied is verified, every page by its hash under key: wrong bytes must not get a right checksum. The
// caller finishes or aborts w. It takes some 150 MiB at most, twice that on a high-latency medium, on as many
// goroutines as run at once.
func Rewrite(ctx context.Context, r *Reader, w *Writer, enc *Encoder, key HashKey, keep Keep) error {
	if r.Number() != w.Number() || w.begun {
		return fmt.Errorf("rewrite pack %d into pack %d: want an empty pack of the same number",
			r.Number(), w.Number())
	}
	w.Continue(r)
	hashes, err := keep.Hashes, error(nil)
	if hashes == nil {
		hashes, err = r.Hashes()
	}
	if err != nil {
		return err
	}
	s, err := enc.get()
	if err != nil {
		return err
	}
	defer enc.put(s)
	rw := rewriter{
		r: r, w: w, enc: enc, scratch: s, keep: keep, hashes: hashes, key: key, hasher: NewHasher(key),
		hot: NewHotEncoder(), done: make([]pageState, r.Slots()),
		tiers: keep.tiers(r.Slots()),
		idle:  make(compressors, runtime.GOMAXPROCS(0)+1), src: r,
	}
	if err := rw.fetchAll(); err != nil {
		return err
	}
	// Units that are copied may be of LZ4, and those that are made for hot pages will be.
	if slices.Contains(rw.tiers, TierHot) || r.foot.version == tierVersion {
		w.head.version = tierVersion
	}
	if err := rw.clusters(ctx); err != nil {
		return fmt.Errorf("rewrite clusters: %w", err)
	}
	for b := range r.Blocks() {
		if err := rw.step(ctx); err != nil {
			return err
		}
		if err := rw.block(b); err != nil {
			return fmt.Errorf("rewrite block %d: %w", b, err)
		}
	}
	for i, it := range r.dir.records {
		if err := rw.step(ctx); err != nil {
			return err
		}
		if err := rw.item(it, &w.dir.records, saltRecord, i, keep.record(i)); err != nil {
			return fmt.Errorf("rewrite record %d: %w", i, err)
		}
	}
	for i, it := range r.dir.frames {
		if err := rw.step(ctx); err != nil {
			return err
		}
		if err := rw.item(it, &w.dir.frames, saltFrame, i, keep.frame(i)); err != nil {
			return fmt.Errorf("rewrite frame %d: %w", i, err)
		}
	}
	return nil
}

// step comes between two parts of the work.
func (rw *rewriter) step(ctx context.Context) error {
	if rw.keep.Step != nil {
		if err := rw.keep.Step(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// rewriter is one Rewrite.
type rewriter struct {
	r       *Reader
	w       *Writer
	enc     *Encoder
	scratch *encoderScratch
	keep    Keep
	hashes  []Hash
	key     HashKey
	hasher  *Hasher
	hot     *Encoder    // of single units
	tiers   []Tier      // of each slot
	done    []pageState // of each slot
	idle    compressors
	src     stored          // of pages: the pack, or what was fetched of it
	all     *Span           // all of it; nil: it is read block by block
	told    sync.Mutex      // held while keep.Page or keep.Lost is called
	said    map[uint32]bool // pages of which it was said that they are lost; guarded by told

	// The present block: its stored bytes, if need be in a span of its own, its decoded pages, and those at
	// its end that are not encoded yet.
	stored *Span
	span   Span
	pages  []byte
	bad    BadSlots
	out    EncodedBlock
	warm   [][]byte
}

// pageState is what became of a page before its block is copied.
type pageState uint8

const (
	pageLeft      pageState = iota // nothing: it is copied with its block
	pageClustered                  // it is in a cluster
	pageLost                       // it is dead, and that was said
)

// block copies one block. It is read once: the bytes that were verified are those that are copied.
func (rw *rewriter) block(b int) error {
	first, count := rw.r.BlockSlots(b)
	rw.pages = grown(rw.pages, int(count)*PageSize)
	if err := rw.read(first, int(count)); err != nil {
		return err
	}
	rw.out = EncodedBlock{pages: int(count), data: rw.out.data[:0], units: rw.out.units[:0]}
	for slot := first; slot < first+count; {
		e := rw.r.dir.slots[slot]
		if err := rw.unit(e, slot, rw.pages[(slot-first)*PageSize:][:e.pages()*PageSize]); err != nil {
			return err
		}
		slot += uint32(e.pages())
	}
	rw.flush()
	_, err := rw.w.AppendBlock(&rw.out, rw.hashes[first:first+count])
	return err
}

// read reads a block, and with it the clusters of pages that come back to it.
func (rw *rewriter) read(first uint32, count int) error {
	fetch, read := rw.r.FetchSpots, rw.r.readSpots
	for slot := first; slot < first+uint32(count); slot++ {
		if _, ok := rw.r.ClusterOf(slot); ok && rw.done[slot] == pageLeft && rw.tiers[slot] != tierDropped {
			fetch, read = rw.r.Fetch, rw.r.readSlots
			break
		}
	}
	if rw.stored = rw.all; rw.all == nil {
		rw.stored = &rw.span
		if err := fetch(first, count, &rw.span); err != nil {
			return err
		}
	}
	read(rw.stored, first, rw.pages, &rw.bad)
	return nil
}

// unit copies the unit that begins with slot.
func (rw *rewriter) unit(e slotEntry, slot uint32, pages []byte) error {
	var take [maxUnitPages][]byte // what becomes of each page; nil: dead, or it is in a cluster
	copied, dead := e.inBlock(), true
	for i := range e.pages() {
		s := slot + uint32(i)
		if rw.done[s] != pageLeft {
			copied, dead = false, dead && rw.done[s] == pageLost
			continue
		}
		page, as, err := rw.page(s, pages[i*PageSize:][:PageSize], rw.bad.Err(s), rw.hasher)
		if err != nil {
			return err
		}
		take[i] = page
		copied, dead = copied && as && rw.fits(e, s), dead && page == nil
	}
	switch {
	case dead:
		rw.flush()
		rw.out.add(codecDead, e.pages(), nil)
	case copied:
		rw.flush()
		data := make([]byte, int(e.len))
		if err := rw.stored.read(data, int64(e.off)); err != nil {
			return err
		}
		rw.out.add(e.codec, e.pages(), data[:len(data)-crcSize])
	default:
		for i, page := range take[:e.pages()] {
			rw.single(slot+uint32(i), page)
		}
	}
	return nil
}

// fits says whether a unit is stored as the tier of a page in it wants.
func (rw *rewriter) fits(e slotEntry, slot uint32) bool {
	switch rw.tiers[slot] {
	case TierHot:
		return e.pages() == 1 && (e.codec == codecLZ4 || e.codec == codecRaw)
	case TierWarm:
		return e.codec == rw.enc.tuning.codec
	default: // what is cold and was not put into a cluster is best as it is
		return true
	}
}

// single encodes a page of a unit that cannot be copied; nil: there is nothing of it in the block.
func (rw *rewriter) single(slot uint32, page []byte) {
	tier := rw.tiers[slot]
	if page != nil && tier == TierWarm {
		rw.warm = append(rw.warm, page) // to be encoded with those beside it
		return
	}
	rw.flush()
	switch {
	case rw.done[slot] == pageClustered:
		rw.out.add(codecClustered, 1, nil)
	case page == nil:
		rw.out.add(codecDead, 1, nil)
	default:
		enc := rw.enc
		if tier == TierHot {
			enc = rw.hot
		}
		c, data := enc.compress(rw.scratch, page)
		rw.out.add(c, 1, data)
	}
}

// flush encodes the pages that were left for it.
func (rw *rewriter) flush() {
	rw.enc.encodeUnits(rw.scratch, &rw.out, rw.warm)
	rw.warm = rw.warm[:0]
}

// page returns what becomes of a page, which was read unless it is bad; as says that it is what is
// stored. A page that does not match its hash stays as it is if that is not to be an error: nobody
// knows which of the two is damaged.
func (rw *rewriter) page(slot uint32, read []byte, bad error, h *Hasher) (page []byte, as bool, err error) {
	dead := rw.r.Dead(slot)
	if rw.tiers[slot] == tierDropped {
		return nil, false, nil
	}
	if bad == nil {
		if h.Sum(read) == rw.hashes[slot] {
			return read, true, nil
		}
		bad = rw.r.slotError(slot, ErrHash)
		page, as = read, true
	}
	rw.told.Lock()
	defer rw.told.Unlock()
	if rw.keep.Page != nil {
		if other := rw.keep.Page(slot); other != nil {
			if h.Sum(other) != rw.hashes[slot] {
				return nil, false, fmt.Errorf("another page is given for slot %d", slot)
			}
			return other, false, nil
		}
	}
	if dead {
		return nil, false, nil
	}
	return page, as, rw.lostPage(slot, bad)
}

// lostPage is lost for a page, which may be looked at twice: that it is lost is said once. told is held.
func (rw *rewriter) lostPage(slot uint32, err error) error {
	if rw.said[slot] {
		return nil
	}
	if err := rw.lost(err); err != nil {
		return err
	}
	if rw.said == nil {
		rw.said = map[uint32]bool{}
	}
	rw.said[slot] = true
	return nil
}

// lost tells of what is damaged, or ends the rewrite with it. Any other error ends it always: what
// cannot be read now may be there all the same.
func (rw *rewriter) lost(err error) error {
	if rw.keep.Lost == nil || !IsDamage(err) {
		return err
	}
	rw.keep.Lost(err)
	return nil
}

// add appends a unit to a block that is put together by hand.
func (b *EncodedBlock) add(c codec, pages int, data []byte) {
	off := len(b.data)
	if tail := b.data[off:cap(b.data)]; len(data) > 0 && len(tail) >= len(data) && &tail[0] == &data[0] {
		b.data = b.data[:off+len(data)] // it was made in room
	} else {
		b.data = append(b.data, data...)
	}
	b.units = append(b.units, encodedUnit{codec: c, pages: pages, off: off, end: len(b.data)})
}

// room returns n bytes behind the units of the block. What is made there and added is not copied.
func (b *EncodedBlock) room(n int) []byte {
	off := len(b.data)
	b.data = slices.Grow(b.data, n)
	return b.data[off : off+n]
}

// item copies one record or frame as it is, or drops it.
func (rw *rewriter) item(it itemEntry, to *[]itemEntry, salt uint64, i int, keep bool) error {
	dead := itemEntry{kind: it.kind, codec: codecDead}
	if it.codec == codecDead || !keep {
		_, err := rw.w.appendItem(to, salt, dead, nil)
		return err
	}
	in, err := rw.r.item(rw.r, it, salt, uint32(i))
	if err != nil {
		if err := rw.lost(rw.r.itemError(fmt.Sprintf("item %d", i), err)); err != nil {
			return err
		}
		_, err = rw.w.appendItem(to, salt, dead, nil)
		return err
	}
	_, err = rw.w.appendItem(to, salt, it, in[zstdPrefix:])
	return err
}
