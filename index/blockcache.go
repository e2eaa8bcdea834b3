package index

import (
	"sync"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// blockCache is for stores in which a read costs much more than its bytes: a page that is wanted
// comes with its whole block (or cluster: a group of spots), and the block with those beside it, in one
// read. They stay in memory
// for their other pages, which somebody will push or touch next: blocks that lie together were used
// one after another, or belong to one address space. They are kept as they are stored.
//
// A reader of a block that is being read already waits for that read. It holds nothing else meanwhile,
// so it waits for the medium only.
type blockCache struct {
	together int // blocks of a stretch
	max      int // stretches in the cache

	mu        sync.Mutex
	stretches map[stretchKey]*stretch
	order     []stretchKey // as they came; guarded by mu, as stretches is
}

// stretchKey names blocks of a pack that are read together: number*together and those behind it.
// Another generation of a pack is another reader.
type stretchKey struct {
	r      *pack.Reader
	number int
}

type stretch struct {
	done chan struct{} // closed when the rest is valid
	span pack.Span
	err  error
}

const (
	// maxBlocks bounds the cache: 4 to 16 MiB of stored bytes.
	maxBlocks = 256
	// latencyOfBlock is how much of a read's latency each block that it brings is worth: a half to
	// a quarter of what a block's bytes take at 100 MB/s. So they add some 30 % to what a read of one
	// page takes, on a disk as over a network.
	latencyOfBlock = 800 * time.Microsecond
	maxTogether    = 16
)

func newBlockCache(m blob.Medium) *blockCache {
	together := min(max(int(m.Latency/latencyOfBlock), 1), maxTogether)
	return &blockCache{together: together, max: maxBlocks / together,
		stretches: map[stretchKey]*stretch{}}
}

// get returns what holds a block of an open pack. It is read at most once while it is cached.
func (c *blockCache) get(r *pack.Reader, block int) (*pack.Span, error) {
	key := stretchKey{r, block / c.together}
	c.mu.Lock()
	x := c.stretches[key]
	if x != nil {
		c.mu.Unlock()
		<-x.done
		return c.orAlone(x, r, block)
	}
	x = &stretch{done: make(chan struct{})}
	c.stretches[key] = x
	c.order = append(c.order, key)
	if len(c.order) > c.max {
		delete(c.stretches, c.order[0])
		c.order = c.order[1:]
	}
	c.mu.Unlock()
	first := key.number * c.together
	x.err = fetchBlocks(r, first, min(first+c.together, r.Spots().Groups()), &x.span)
	close(x.done)
	if x.err != nil {
		c.forget(key, x) // the next one tries again
	}
	return c.orAlone(x, r, block)
}

// orAlone returns a stretch, or the block alone where the stretch could not be read whole: a block
// must not fail because its neighbours cannot be read.
func (c *blockCache) orAlone(x *stretch, r *pack.Reader, block int) (*pack.Span, error) {
	if x.err == nil || c.together == 1 {
		return &x.span, x.err
	}
	var alone pack.Span
	return &alone, fetchBlocks(r, block, block+1, &alone)
}

// fetchBlocks reads the blocks from first to before end.
func fetchBlocks(r *pack.Reader, first, end int, s *pack.Span) error {
	from, _ := r.Spots().Group(first)
	last, count := r.Spots().Group(end - 1)
	return r.FetchSpots(from, int(last+count-from), s)
}

// forget removes a stretch unless another one has taken its place.
func (c *blockCache) forget(key stretchKey, x *stretch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stretches[key] == x {
		delete(c.stretches, key) // its place in the order is harmless
	}
}

// readPage is Reader.ReadPage by way of the block.
func (c *blockCache) readPage(r *pack.Reader, slot uint32, dst []byte) error {
	block, ok := r.Spots().GroupOf(r.Spots().Of(slot))
	if !ok || r.Dead(slot) {
		return r.ReadPage(slot, dst) // it describes the error
	}
	s, err := c.get(r, block)
	if err != nil {
		return err
	}
	return s.ReadPage(slot, dst)
}

// whole returns the block that consecutive spots lie in, if they lie in one; false without a cache.
func (c *blockCache) whole(r *pack.Reader, first uint32, count int) (block int, ok bool) {
	if c == nil {
		return 0, false
	}
	block, ok = r.Spots().GroupOf(first)
	last, there := r.Spots().GroupOf(first + uint32(count) - 1)
	return block, ok && there && block == last
}

// readSpots is Reader.ReadSpots: by way of the stretches that the spots lie in, if there is a cache
// and they are no more than one has, wherever they begin.
func (c *blockCache) readSpots(r *pack.Reader, first uint32, dst []byte, bad *pack.BadSlots) {
	n := len(dst) / PageSize
	if block, ok := c.whole(r, first, n); ok {
		s, err := c.get(r, block)
		if err != nil {
			clear(dst)
			bad.Fail(r, first, n, err)
			return
		}
		s.ReadSpots(first, dst, bad)
		return
	}
	if c == nil || c.together == 1 || n > c.together*pack.BlockPages ||
		!c.across(r, first, dst, bad) {
		r.ReadSpots(first, dst, bad)
	}
}

// across reads spots that lie in more than one block. If it cannot, the reader's error says why.
func (c *blockCache) across(r *pack.Reader, first uint32, dst []byte, bad *pack.BadSlots) bool {
	bad.Fail(r, first, 0, nil)
	var part pack.BadSlots
	for len(dst) > 0 {
		block, ok := r.Spots().GroupOf(first)
		if !ok {
			return false
		}
		s, err := c.get(r, block)
		if err != nil {
			return false
		}
		end := min((block/c.together+1)*c.together, r.Spots().Groups())
		last, count := r.Spots().Group(end - 1)
		n := min(int(last+count-first), len(dst)/PageSize)
		s.ReadSpots(first, dst[:n*PageSize], &part)
		bad.Append(&part)
		first, dst = first+uint32(n), dst[n*PageSize:]
	}
	return true
}
