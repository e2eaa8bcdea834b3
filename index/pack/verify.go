package pack

import (
	"context"
	"fmt"
)

// Damage is one thing that Verify found damaged.
type Damage struct {
	Kind   DamageKind
	Number int   // of the slot, record or frame
	Err    error // a *CorruptError, or that of a bad sector
}

// DamageKind says what is damaged.
type DamageKind string

// What may be damaged of a pack that can be opened.
const (
	DamagedHeader DamageKind = "header"
	DamagedHashes DamageKind = "hashes"
	DamagedSlot   DamageKind = "slot"
	DamagedRecord DamageKind = "record"
	DamagedFrame  DamageKind = "frame"
)

// Verify reads everything in the pack, checks every checksum and decodes everything. Each page that
// is not dead is compared with its hash under key. bad is told of each damage and Verify goes on; what
// cannot be read at all ends it, unless it lies on a bad sector. progress, if not nil, is told the
// bytes of the file done so far.
func (r *Reader) Verify(
	ctx context.Context, key HashKey, bad func(Damage), progress func(int64),
) error {
	v := verifier{r: r, ctx: ctx, bad: bad, progress: progress, hasher: NewHasher(key)}
	if err := v.note(DamagedHeader, 0, r.verifyHeader()); err != nil {
		return err
	}
	hashes, err := r.Hashes()
	if err := v.note(DamagedHashes, 0, err); err != nil {
		return err
	}
	for g := range r.Spots().Groups() {
		if err := v.group(g, hashes); err != nil {
			return err
		}
	}
	for i := range r.Records() {
		if r.dir.records[i].codec == codecDead {
			continue
		}
		_, err := r.ReadRecord(i, nil)
		if err := v.step(DamagedRecord, i, err, r.dir.records[i].stored); err != nil {
			return err
		}
	}
	var f Frame
	for i := range r.Frames() {
		if r.dir.frames[i].codec == codecDead {
			continue
		}
		if err := v.step(DamagedFrame, i, r.ReadFrame(i, &f), r.dir.frames[i].stored); err != nil {
			return err
		}
	}
	return nil
}

// verifyHeader compares the header with the footer. Reading needs only the latter.
func (r *Reader) verifyHeader() error {
	head := make([]byte, headerSize)
	if err := r.read(head, 0); err != nil {
		return err
	}
	h, err := parseHeader(head)
	if err == nil && (h.number != r.foot.number || h.generation != r.foot.generation) {
		err = fmt.Errorf("says pack %d generation %d", h.number, h.generation)
	}
	if err != nil {
		return r.corrupt("header", err)
	}
	return nil
}

type verifier struct {
	r        *Reader
	ctx      context.Context
	bad      func(Damage)
	progress func(int64)
	hasher   *Hasher
	done     int64
	pages    []byte
	slots    BadSlots
}

// note reports damage and swallows it; other errors come back. What lies on a bad sector is damaged.
func (v *verifier) note(kind DamageKind, number int, err error) error {
	if IsDamage(err) {
		v.bad(Damage{kind, number, err})
		return nil
	}
	return err
}

// step is note, and counts the bytes of what was verified.
func (v *verifier) step(kind DamageKind, number int, err error, stored uint32) error {
	v.done += int64(stored)
	if v.progress != nil {
		v.progress(v.done)
	}
	if err := v.note(kind, number, err); err != nil {
		return err
	}
	return v.ctx.Err()
}

// group verifies a block or a cluster, and names each bad page of it.
func (v *verifier) group(g int, hashes []Hash) error {
	spots := v.r.Spots()
	first, count := spots.Group(g)
	v.pages = grown(v.pages, int(count)*PageSize)
	v.r.ReadSpots(first, v.pages, &v.slots)
	for spot := first; spot < first+count; spot++ {
		slot := spots.Slot(spot)
		if spots.Of(slot) != spot || v.r.Dead(slot) {
			continue
		}
		page := v.pages[(spot-first)*PageSize:][:PageSize]
		err := v.slots.Err(spot)
		if err == nil && hashes != nil && v.hasher.Sum(page) != hashes[slot] {
			err = v.r.slotError(slot, ErrHash)
		}
		if err == nil {
			continue
		}
		if err := v.note(DamagedSlot, int(slot), err); err != nil {
			return err
		}
	}
	return v.step(DamagedSlot, 0, nil, uint32(spots.Bytes(g)))
}
