package index

import (
	"encoding/binary"
	"math/bits"

	"github.com/thawfs/thaw/index/pack"
)

// hintTable finds pages by their hashes, in eight bytes a page. It has 32 bits of each hash, and the place
// in the table depends on others: so it returns wrong refs sometimes, about once in 2^32 searches, and
// its user compares the whole hash. Pages are only added to it.
type hintTable struct {
	// An entry has 32 bits of the hash, the position of the pack in packs, and the slot + 1 (24 bits and
	// one); 0: empty. A page lies at its place or behind it, with no empty entry between.
	entries []uint64
	packs   []uint64 // numbers
	count   int
}

const (
	hintSlotBits = 25
	maxHintPacks = 1 << (32 - hintSlotBits)
)

// newHintTable makes a table with room for so many pages.
func newHintTable(pages int) *hintTable {
	return &hintTable{entries: make([]uint64, pages+pages/3+8)}
}

// room is how many pages the table holds without becoming slow.
func (t *hintTable) room() int { return len(t.entries) / 4 * 3 }

// place is where the search for a hash begins, and tag what its entry has of it.
func (t *hintTable) place(h pack.Hash) (at int, tag uint64) {
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(h[8:]), uint64(len(t.entries)))
	return int(hi), uint64(binary.LittleEndian.Uint32(h[:])) << 32
}

// add adds a page of the pack that was added to packs last. Of pages with the same hash the last one counts.
func (t *hintTable) add(h pack.Hash, slot uint32) {
	at, tag := t.place(h)
	entry := tag | uint64(len(t.packs)-1)<<hintSlotBits | uint64(slot+1)
	for t.entries[at] != 0 {
		if t.entries[at]&^(1<<32-1) == tag {
			t.entries[at] = entry
			return
		}
		if at++; at == len(t.entries) {
			at = 0
		}
	}
	if t.count == len(t.entries)-1 {
		return // there must be an empty entry: it costs the space of a page at most
	}
	t.entries[at] = entry
	t.count++
}

// ref returns where a page with this hash may be; 0 if there is none.
func (t *hintTable) ref(h pack.Hash) uint64 {
	at, tag := t.place(h)
	for t.entries[at] != 0 {
		if e := t.entries[at]; e&^(1<<32-1) == tag {
			number := t.packs[uint32(e)>>hintSlotBits]
			return uint64(pack.MakeRef(number, uint32(e)&(1<<hintSlotBits-1)-1))
		}
		if at++; at == len(t.entries) {
			at = 0
		}
	}
	return 0
}
