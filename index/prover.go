package index

import "github.com/thawfs/thaw/index/pack"

// prover has the hashes of the pages of one piece after another. They are not verified.
type prover struct {
	hasher *pack.Hasher
	spots  pack.Spots
	hashes []pack.Hash // of the slots from first on
	first  uint32
	whole  *pack.Reader         // whose hashes these all are; nil: of a part of them
	single map[uint32]pack.Hash // where the hashes cannot be read all at once; by slot
}

// read reads the hashes of pages, which ascend by spot. In a pack that has clusters their slots are anywhere:
// there it reads the hashes of all, once.
func (v *prover) read(r *pack.Reader, pages []spotGFN) (err error) {
	if v.whole == r {
		return nil
	}
	v.whole, v.single, v.spots = nil, nil, r.Spots()
	first, n := extent(pages)
	if v.spots.Moved() {
		first, n = 0, r.Slots()
	}
	v.first = first
	v.hashes, err = r.ReadHashes(first, min(n, max(r.Slots()-int(first), 0)))
	switch {
	case isDamage(err):
		return v.readSingle(r, pages)
	case err == nil && v.spots.Moved():
		v.whole = r
	}
	return err
}

// readSingle reads the hashes of pages one by one, and leaves out those that are damaged: they must not cost
// the other pages, nor these, which have checksums.
func (v *prover) readSingle(r *pack.Reader, pages []spotGFN) error {
	v.single = map[uint32]pack.Hash{}
	for _, x := range pages {
		slot := v.spots.Slot(x.spot())
		if _, ok := v.single[slot]; ok || int(slot) >= r.Slots() {
			continue
		}
		h, err := r.ReadHashes(slot, 1)
		if isDamage(err) {
			continue
		}
		if err != nil {
			return err
		}
		v.single[slot] = h[0]
	}
	return nil
}

// hash returns the hash of the page at a spot; false if it has none.
func (v *prover) hash(spot uint32) (pack.Hash, bool) {
	slot := v.spots.Slot(spot)
	if v.single != nil {
		h, ok := v.single[slot]
		return h, ok
	}
	if i := slot - v.first; slot >= v.first && int(i) < len(v.hashes) {
		return v.hashes[i], true
	}
	return pack.Hash{}, false
}
