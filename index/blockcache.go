package index

import (
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// blockCache is for stores in which a read costs much more than its bytes: a page that is wanted
// comes with its whole block, in one read, and the block stays at hand for its other pages, which
// somebody will push or touch next. Blocks are kept as they are stored.
//
// Whoever wants a block that is just being read waits for that read; nobody holds anything else
// meanwhile, so waiting is for the medium and for nothing else.
type blockCache struct {
	max    int
	mu     sync.Mutex
	blocks map[blockKey]*cachedBlock
	order  []blockKey // as they came; guarded by mu, as blocks is
}

// blockKey names a block. Another generation of a pack is another reader.
type blockKey struct {
	r     *pack.Reader
	block int
}

type cachedBlock struct {
	done chan struct{} // closed when the rest is valid
	span pack.Span
	err  error
}

// maxBlocks bounds the cache: 4 to 16 MiB of stored bytes.
const maxBlocks = 256

func newBlockCache() *blockCache {
	return &blockCache{max: maxBlocks, blocks: map[blockKey]*cachedBlock{}}
}

// get gives a block of an open pack, read at most once while it is at hand.
func (c *blockCache) get(r *pack.Reader, block int) (*pack.Span, error) {
	key := blockKey{r, block}
	c.mu.Lock()
	b := c.blocks[key]
	if b != nil {
		c.mu.Unlock()
		<-b.done
		return &b.span, b.err
	}
	b = &cachedBlock{done: make(chan struct{})}
	c.blocks[key] = b
	c.order = append(c.order, key)
	if len(c.order) > c.max {
		delete(c.blocks, c.order[0])
		c.order = c.order[1:]
	}
	c.mu.Unlock()
	first, count := r.BlockSlots(block)
	b.err = r.Fetch(first, int(count), &b.span)
	close(b.done)
	if b.err != nil {
		c.forget(key, b) // the next one tries again
	}
	return &b.span, b.err
}

// forget takes a block out if it is still the one that is meant.
func (c *blockCache) forget(key blockKey, b *cachedBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks[key] == b {
		delete(c.blocks, key) // its place in the order is harmless
	}
}

// readPage is Reader.ReadPage by way of the block.
func (c *blockCache) readPage(r *pack.Reader, slot uint32, dst []byte) error {
	block, ok := r.BlockOf(slot)
	if !ok || r.Dead(slot) {
		return r.ReadPage(slot, dst) // which has the words for it
	}
	s, err := c.get(r, block)
	if err != nil {
		return err
	}
	return s.ReadPage(slot, dst)
}

// whole gives the block that consecutive slots lie in, if they lie in one; false without a cache.
func (c *blockCache) whole(r *pack.Reader, first uint32, count int) (block int, ok bool) {
	if c == nil {
		return 0, false
	}
	block, ok = r.BlockOf(first)
	last, there := r.BlockOf(first + uint32(count) - 1)
	return block, ok && there && block == last
}

// readSlots is Reader.ReadSlots: by way of the block if the slots lie in one and there is a cache.
func (c *blockCache) readSlots(r *pack.Reader, first uint32, dst []byte) error {
	block, ok := c.whole(r, first, len(dst)/PageSize)
	if !ok {
		return r.ReadSlots(first, dst)
	}
	s, err := c.get(r, block)
	if err != nil {
		return err
	}
	return s.ReadSlots(first, dst)
}
