package index

import (
	"context"
	"log/slog"
	"slices"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/thawfs/thaw/index/pack"
)

// dedup finds out whether a page is stored already. It asks, the cheapest first: the page at the
// same place in the parent, what this import stored, the index.
type dedup struct {
	parent *pageMap // of the image that this one is likely to be like; nil: none
	hashes *hashCache
	fresh  map[pack.Hash]uint64 // what this import stored, since the last flush
	hints  *hints
	ask    bool // false: the index knows no page

	// What is asked of the index at once.
	sums []pack.Hash
	refs []uint64
	at   []int // their places in the chunk
}

// maxFresh bounds dedup.fresh (about 40 MiB). What is beyond it is found in the index.
const maxFresh = 1 << 20

// find looks for the pages of a chunk: found[i] becomes the ref of page i, 0 if it is not known. It leaves
// to its caller what this import stored, if there is nothing else. The index is asked once.
func (d *dedup) find(ctx context.Context, c *chunk, found []uint64) error {
	d.sums, d.at = d.sums[:0], d.at[:0]
	for i := range c.gfns {
		h := c.hashes[i]
		found[i] = 0
		if c.kinds[i] != pageData {
			continue
		}
		found[i] = d.inParent(c.gfns[i], h)
		if found[i] == 0 && d.ask {
			found[i] = d.fresh[h]
		}
		if found[i] == 0 {
			d.sums, d.at = append(d.sums, h), append(d.at, i)
		}
	}
	if !d.ask || len(d.sums) == 0 {
		return nil
	}
	d.refs = slices.Grow(d.refs[:0], len(d.sums))[:len(d.sums)]
	if err := d.hints.pages(ctx, d.sums, d.refs); err != nil {
		return err
	}
	for i, ref := range d.refs {
		if ref != 0 && d.hashes.is(ref, d.sums[i]) {
			found[d.at[i]] = ref
		}
	}
	return nil
}

// inParent returns the ref of a page that the parent has in its place; 0 if it does not.
func (d *dedup) inParent(gfn uint64, h pack.Hash) uint64 {
	if d.parent == nil {
		return 0
	}
	if ref := d.parent.ref(gfn); ref != 0 && d.hashes.is(ref, h) {
		return ref
	}
	return 0
}

// hashCache holds the page hashes of the parts of packs that were used last. The first time that a pack is
// asked for, its hashes are read and verified all together; later one part at a time. An image that grew by
// many large steps has neighbours in hundreds of packs, whose hashes do not fit all at once.
type hashCache struct {
	ctx   context.Context
	packs *lazyPacks
	log   *slog.Logger
	parts *simplelru.LRU[hashPart, []pack.Hash] // zero for a page that is gone
	seen  map[uint64]bool                       // packs that were asked for; false for one that cannot be read
	held  int                                   // hashes in parts
	bound int                                   // of held

	last   hashPart // that was asked for, plus 1 in number; and what it has
	hashes []pack.Hash
}

// hashPart is some slots of a pack: those from part*partHashes on.
type hashPart struct {
	number uint64
	part   uint32
}

// Bounds of the cache. A store that grew by small steps has many packs of few pages, and a pack of
// somebody else's may have 16,777,216: so it is the hashes that count (32 MiB).
const (
	maxHeldHashes  = 32 << 20 / pack.HashSize
	maxHashedParts = 1 << 16
	partHashes     = 256 // 4 KiB
)

// hashWalks is the part of the packs that a walk may have open which are kept open for hashes.
const hashWalks = 4

func newHashCache(ctx context.Context, packs *packSet, ids map[uint64]uint64, log *slog.Logger) *hashCache {
	c := &hashCache{
		ctx: ctx, packs: newSomePacks(ctx, packs, hashWalks), log: log, seen: map[uint64]bool{},
		bound: maxHeldHashes,
	}
	c.packs.ids = ids
	c.parts, _ = simplelru.NewLRU(maxHashedParts, func(_ hashPart, h []pack.Hash) { c.held -= len(h) })
	return c
}

// release closes the packs that it has open.
func (c *hashCache) release() { c.packs.release() }

// is says whether ref is a page that is there and has this hash.
func (c *hashCache) is(ref uint64, h pack.Hash) bool {
	slot := pack.Ref(ref).Slot()
	if want := (hashPart{ref>>24 + 1, slot / partHashes}); want != c.last {
		c.last, c.hashes = want, c.get(hashPart{ref >> 24, slot / partHashes})
	}
	i := int(slot % partHashes)
	return i < len(c.hashes) && c.hashes[i] == h
}

// get returns the hashes of a part; nil if there are none that can be relied on.
func (c *hashCache) get(p hashPart) []pack.Hash {
	if hashes, ok := c.parts.Get(p); ok {
		return hashes
	}
	readable, seen := c.seen[p.number]
	if seen && !readable || !c.packs.set.has(p.number) {
		return nil // if it is not there, the index is out of date, which is not an error
	}
	read := c.one
	if !seen {
		read = c.all
	}
	hashes, err := read(p)
	if err != nil {
		// Its pages are stored again, then: better twice than from a damaged pack.
		c.log.Warn("a pack is not used for deduplication: its hashes cannot be read",
			"pack", p.number, "err", err)
	}
	c.seen[p.number] = err == nil
	return hashes
}

// all reads the hashes of a pack, and returns those of a part.
func (c *hashCache) all(p hashPart) (of []pack.Hash, err error) {
	r, err := c.packs.get(p.number)
	if err != nil {
		return nil, err
	}
	hashes, err := r.Hashes()
	if err != nil {
		return nil, err
	}
	for part := range uint32((len(hashes) + partHashes - 1) / partHashes) {
		from := int(part) * partHashes
		// A copy: the whole is not kept for one part of it.
		got := c.add(r, hashPart{p.number, part}, slices.Clone(hashes[from:min(from+partHashes, len(hashes))]))
		if part == p.part {
			of = got
		}
	}
	return of, nil
}

// one reads the hashes of a part.
func (c *hashCache) one(p hashPart) ([]pack.Hash, error) {
	r, err := c.packs.get(p.number)
	if err != nil {
		return nil, err
	}
	first := p.part * partHashes
	if int(first) >= r.Slots() {
		return nil, nil
	}
	hashes, err := r.ReadHashes(first, min(partHashes, r.Slots()-int(first)))
	if err != nil {
		return nil, err
	}
	return c.add(r, p, hashes), nil
}

// add keeps the hashes of a part, without those of dead pages.
func (c *hashCache) add(r *pack.Reader, p hashPart, hashes []pack.Hash) []pack.Hash {
	for i := range hashes {
		if r.Dead(p.part*partHashes + uint32(i)) {
			hashes[i] = pack.Hash{}
		}
	}
	c.held += len(hashes)
	c.parts.Add(p, hashes)
	for c.held > c.bound && c.parts.Len() > 1 {
		c.parts.RemoveOldest()
	}
	return hashes
}
