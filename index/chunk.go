package index

import (
	"bytes"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/thawfs/thaw/index/pack"
)

// chunkPages is how many pages of an image are read and hashed as one job (1 MiB).
const chunkPages = 256

// readPages is how many of them are read at once: they are hashed while they are in the cache of the core.
const readPages = 64

// What a page of a chunk is.
const (
	pageZero = iota // all zero
	pageData        // has a hash
	pageSkip        // came before, with a group
)

// chunk is some pages of an image on their way through an import. Its buffer goes back to the pool
// when nobody needs a page of it any more.
type chunk struct {
	gfns   []uint64
	buf    []byte
	kinds  [chunkPages]uint8
	hashes [chunkPages]pack.Hash
	refs   atomic.Int32
	pool   *sync.Pool
}

func newChunk(pool *sync.Pool) *chunk {
	c, ok := pool.Get().(*chunk)
	if !ok {
		c = &chunk{pool: pool, buf: make([]byte, chunkPages*PageSize)}
	}
	c.gfns = c.gfns[:0]
	c.refs.Store(1)
	return c
}

func (c *chunk) hold() { c.refs.Add(1) }

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.pool.Put(c)
	}
}

func (c *chunk) page(i int) []byte { return c.buf[i*PageSize : (i+1)*PageSize] }

// zeroPage is compared with; nobody writes to it.
var zeroPage [PageSize]byte

func isZero(page []byte) bool { return bytes.Equal(page, zeroPage[:]) }

// fill reads the pages of the chunk and finds out what they are. Those in skip, which may be nil,
// are not even read.
func (c *chunk) fill(m *sourceMemory, h *pack.Hasher, skip *gfnSet) error {
	for i := 0; i < len(c.gfns); {
		if skip != nil && skip.has(c.gfns[i]) {
			c.kinds[i] = pageSkip
			i++
			continue
		}
		j := i + 1
		for j < len(c.gfns) && j < i+readPages && (skip == nil || !skip.has(c.gfns[j])) {
			j++
		}
		if err := m.read(c.gfns[i:j], c.buf[i*PageSize:]); err != nil {
			return err
		}
		for ; i < j; i++ {
			if isZero(c.page(i)) {
				c.kinds[i] = pageZero
				continue
			}
			c.kinds[i] = pageData
			c.hashes[i] = h.Sum(c.page(i))
		}
	}
	return nil
}

// chunks cuts runs into chunks: up to 256 pages each, in order.
func chunks(runs []Run, pool *sync.Pool) iter.Seq[*chunk] {
	return func(yield func(*chunk) bool) {
		c := newChunk(pool)
		for _, r := range runs {
			for gfn := r.GFN; gfn < r.GFN+r.Count; gfn++ {
				if c.gfns = append(c.gfns, gfn); len(c.gfns) < chunkPages {
					continue
				}
				if !yield(c) {
					return
				}
				c = newChunk(pool)
			}
		}
		if len(c.gfns) > 0 {
			yield(c)
		}
	}
}
