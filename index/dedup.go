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

// maxFresh bounds dedup.fresh (about 100 MiB). What is beyond it is found in the index.
const maxFresh = 2 << 20

// find looks for all pages of a chunk: found[i] becomes the ref of page i, 0 if it is not stored. The
// index is asked once.
func (d *dedup) find(ctx context.Context, c *chunk, found []uint64) error {
	d.sums, d.at = d.sums[:0], d.at[:0]
	for i := range c.gfns {
		h := c.hashes[i]
		found[i] = 0
		if c.kinds[i] != pageData {
			continue
		}
		if found[i] = d.near(c.gfns[i], h); found[i] == 0 {
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

// near returns the ref of a page that is found without the index; 0 if it is not.
func (d *dedup) near(gfn uint64, h pack.Hash) uint64 {
	if d.parent != nil {
		if ref := d.parent.ref(gfn); ref != 0 && d.hashes.is(ref, h) {
			return ref
		}
	}
	return d.fresh[h]
}

// hashCache holds the page hashes of the packs that were used last.
type hashCache struct {
	ctx   context.Context
	packs *packSet
	ids   map[uint64]uint64 // of packs that checkpoints list
	log   *slog.Logger
	lru   *simplelru.LRU[uint64, []pack.Hash] // zero for a page that is gone; nil for a pack that cannot be read
	held  int                                 // hashes in lru

	number uint64 // of the pack asked for last
	hashes []pack.Hash
}

// Bounds of the cache. A store that grew by small steps has many packs of few pages, and a pack of
// somebody else's may have 16,777,216: so it is the hashes that count (64 MiB).
const (
	maxHeldHashes  = 64 << 20 / pack.HashSize
	maxHashedPacks = 1 << 16
)

func newHashCache(ctx context.Context, packs *packSet, ids map[uint64]uint64, log *slog.Logger) *hashCache {
	c := &hashCache{ctx: ctx, packs: packs, ids: ids, log: log}
	c.lru, _ = simplelru.NewLRU(maxHashedPacks, func(_ uint64, hashes []pack.Hash) { c.held -= len(hashes) })
	return c
}

// is says whether ref is a page that is there and has this hash.
func (c *hashCache) is(ref uint64, h pack.Hash) bool {
	if number := ref >> 24; number != c.number {
		c.number, c.hashes = number, c.get(number)
	}
	slot := pack.Ref(ref).Slot()
	return int(slot) < len(c.hashes) && c.hashes[slot] == h
}

func (c *hashCache) get(number uint64) []pack.Hash {
	if hashes, ok := c.lru.Get(number); ok {
		return hashes
	}
	hashes, err := c.read(number)
	if err != nil {
		// Its pages are stored again, then: better twice than from a damaged pack.
		c.log.Warn("a pack is not used for deduplication: its hashes cannot be read",
			"pack", number, "err", err)
	}
	c.held += len(hashes)
	c.lru.Add(number, hashes)
	for c.held > maxHeldHashes && c.lru.Len() > 1 {
		c.lru.RemoveOldest()
	}
	return hashes
}

func (c *hashCache) read(number uint64) ([]pack.Hash, error) {
	if !c.packs.has(number) {
		return nil, nil // the index is out of date, which is not an error
	}
	p, done, err := c.packs.use(c.ctx, number, c.ids[number])
	if err != nil {
		return nil, err
	}
	defer done()
	hashes, err := p.Hashes()
	for slot := range hashes {
		if p.Dead(uint32(slot)) {
			hashes[slot] = pack.Hash{}
		}
	}
	return hashes, err
}
