package index

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// maxPackPages bounds a pack: 256 MiB of pages. It is a number of pages, not of bytes, so that the
// place of a page is known before it is compressed.
const maxPackPages = 1 << 16

// blocksAhead is how many blocks may wait to be written (16 MiB of pages): while the disk takes no more,
// the processors have that to do.
const blocksAhead = 256

// packer stores the pages of an import. add says at once where a page will lie; blocks are
// compressed in parallel behind it and appended in order.
type packer struct {
	s      *Store
	g      *tasks
	enc    *pack.Encoder
	blocks *ordered[*blockJob]
	cur    *blockJob
	pool   sync.Pool // of *blockJob
	number uint64    // of the pack that add fills
	slots  uint32    // that it has given out of it

	done chan struct{} // closed when the last block was appended
	err  error         // why not all were; valid once done is closed
	w    *pack.Writer  // of the goroutine that appends; the importer's once done is closed

	// Of the pack that is being finished, nil before the first. The others are valid once it is closed.
	finishing chan struct{}
	finishErr error
	written   []uint64 // finished packs
	bytes     int64    // of these
}

// blockJob is a locality block to be compressed and appended.
type blockJob struct {
	number uint64
	first  uint32
	pages  [][]byte
	hashes []pack.Hash
	chunk  *chunk // that pages lie in; those of other chunks are copied
	copies []byte // of them; as large as a block
	enc    pack.EncodedBlock

	drained chan struct{} // not nil: no block, but the request to finish the pack
}

func newPacker(s *Store, g *tasks, p Profile) (*packer, error) {
	enc, err := pack.NewImportEncoder(p)
	if err != nil {
		return nil, err
	}
	pk := &packer{s: s, g: g, enc: enc, done: make(chan struct{})}
	n := runtime.GOMAXPROCS(0)
	pk.blocks = newOrdered(g, n, blocksAhead, func() func(*blockJob) error {
		return func(b *blockJob) error {
			if b.drained != nil {
				return nil
			}
			return pk.enc.EncodeBlock(&b.enc, b.pages)
		}
	})
	g.run(func() error {
		defer close(pk.done)
		pk.err = pk.append()
		return pk.err
	})
	return pk, nil
}

// add stores page i of a chunk and returns its ref.
func (k *packer) add(c *chunk, i int) (ref uint64, err error) {
	if k.number == 0 || k.slots == k.s.limits.packPages {
		if err := k.flush(); err != nil {
			return 0, err
		}
		if k.number, err = k.s.alloc.take(k.g.ctx); err != nil {
			return 0, err
		}
		k.slots = 0
	}
	if k.cur == nil {
		k.cur = k.newBlock()
	}
	b := k.cur
	b.pages = append(b.pages, b.keep(c, c.page(i)))
	b.hashes = append(b.hashes, c.hashes[i])
	ref = uint64(pack.MakeRef(k.number, k.slots))
	k.slots++
	if len(b.pages) == pack.BlockPages {
		return ref, k.flush()
	}
	return ref, nil
}

// newBlock begins a block. It uses the memory of earlier blocks again.
func (k *packer) newBlock() *blockJob {
	b, ok := k.pool.Get().(*blockJob)
	if !ok {
		b = new(blockJob)
	}
	b.number, b.first = k.number, k.slots
	b.pages, b.hashes, b.chunk = b.pages[:0], b.hashes[:0], nil
	return b
}

// keep makes a page of a chunk stay as it is until the block is appended. A block holds one chunk at most:
// where few pages are new, each of a block's would hold a megabyte, and the blocks that wait for the disk
// gigabytes.
func (b *blockJob) keep(c *chunk, page []byte) []byte {
	switch b.chunk {
	case nil:
		c.hold()
		b.chunk = c
		return page
	case c:
		return page
	}
	if b.copies == nil {
		b.copies = make([]byte, pack.BlockPages*PageSize)
	}
	own := b.copies[len(b.pages)*PageSize:][:PageSize:PageSize]
	copy(own, page)
	return own
}

// flush ends the present block, so that the next page begins another.
func (k *packer) flush() error {
	if k.cur == nil {
		return nil
	}
	b := k.cur
	k.cur = nil
	return k.blocks.submit(b)
}

// end says that no more pages come, and waits until all are appended.
func (k *packer) end() error {
	if err := k.flush(); err != nil {
		return err
	}
	k.blocks.end()
	select {
	case <-k.done:
		return k.err
	case <-k.g.ctx.Done():
		return k.g.err()
	}
}

// drain finishes the present pack, and returns when all pages that were added are in packs of the store.
func (k *packer) drain() error {
	if err := k.flush(); err != nil {
		return err
	}
	b := &blockJob{drained: make(chan struct{})}
	if err := k.blocks.submit(b); err != nil {
		return err
	}
	k.number = 0
	select {
	case <-b.drained:
		return nil
	case <-k.g.ctx.Done():
		return k.g.err()
	}
}

// append is the goroutine that appends blocks.
func (k *packer) append() error {
	for {
		b, ok, err := k.blocks.receive()
		if err != nil || !ok {
			return err
		}
		if b.drained != nil {
			if err := errors.Join(k.finish(), k.finished()); err != nil {
				return err
			}
			close(b.drained)
			continue
		}
		if k.w == nil || k.w.Number() != b.number {
			if err := k.finish(); err != nil {
				return err
			}
			if k.w, err = k.s.createPack(k.g.ctx, b.number); err != nil {
				return err
			}
		}
		first, err := k.w.AppendBlock(&b.enc, b.hashes)
		if err != nil {
			return err
		}
		if first != b.first {
			return fmt.Errorf("pack %d: a block came to slot %d, not %d", b.number, first, b.first)
		}
		b.chunk.release()
		k.pool.Put(b)
	}
}

// finish commits the present pack, in the background: the next one is filled meanwhile. Only one pack
// at a time is being finished.
func (k *packer) finish() error {
	if err := k.finished(); err != nil || k.w == nil {
		return err
	}
	w := k.w
	k.w = nil
	done := make(chan struct{})
	k.finishing = done
	k.g.run(func() error {
		defer close(done)
		k.finishErr = k.commit(w)
		return k.finishErr
	})
	return nil
}

// finished waits for the pack that is being finished, if any.
func (k *packer) finished() error {
	if k.finishing == nil {
		return nil
	}
	<-k.finishing
	return k.finishErr
}

// commit commits a pack.
func (k *packer) commit(w *pack.Writer) error {
	number := w.Number()
	size, err := w.Finish()
	if err != nil {
		return err
	}
	k.s.packs.addWritten(w, size)
	k.written = append(k.written, number)
	k.bytes += size
	return nil
}

// record appends a record to the last pack, or to a new one if nothing was stored. It is called
// after end.
func (k *packer) record(kind uint32, data []byte) (ref uint64, err error) {
	if k.w != nil {
		n, err := k.w.AppendRecord(kind, data)
		if !errors.Is(err, pack.ErrFull) {
			return uint64(pack.MakeRef(k.w.Number(), uint32(n))), err
		}
		if err := k.finish(); err != nil {
			return 0, err
		}
	}
	number, err := k.s.alloc.take(k.g.ctx)
	if err != nil {
		return 0, err
	}
	if k.w, err = k.s.createPack(k.g.ctx, number); err != nil {
		return 0, err
	}
	n, err := k.w.AppendRecord(kind, data)
	return uint64(pack.MakeRef(number, uint32(n))), err
}

// abort abandons the pack that is not being finished. All goroutines have ended.
func (k *packer) abort() {
	if k.w != nil {
		_ = k.w.Abort()
	}
}

// createPack begins a new pack.
func (s *Store) createPack(ctx context.Context, number uint64) (*pack.Writer, error) {
	return newPackBlob(ctx, s.blobs, pack.Name(number, 0), number, 0)
}

// newPackBlob begins a pack or root.
func newPackBlob(ctx context.Context, blobs blob.Store, name string, number uint64, generation uint32) (
	*pack.Writer, error,
) {
	bw, err := blobs.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	w, err := pack.NewWriter(bw, number, generation)
	if err != nil {
		return nil, errors.Join(err, bw.Abort())
	}
	return w, nil
}
