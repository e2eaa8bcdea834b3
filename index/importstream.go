package index

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// Stream is an image that can be read only once, from its beginning to its end: the standard input, a file
// that is compressed as a whole. Its pages are stored in the order in which they come.
type Stream interface {
	// Read reads it all. It calls put for the pages as they come: one or more that follow each other, from
	// gfn on. A page that never comes is zero, and of one that comes twice the later one counts. The bytes
	// are the caller's again when put returns. After an error of put Read ends with that error.
	Read(ctx context.Context, put func(gfn uint64, pages []byte) error) (StreamEnd, error)
}

// StreamEnd is what is known of an image once it was read.
type StreamEnd struct {
	Size int64           // in bytes, a multiple of 4096
	Info json.RawMessage // the VMM's info.json; nil if there is none
}

// prepareStream is prepare for a stream, of which nothing is known. Sets and orders would name pages before
// they are there.
func (im *importer) prepareStream(ctx context.Context) error {
	if im.src.Image != nil || im.src.Info != nil || len(im.o.WorkingSet) > 0 || len(im.o.Order) > 0 {
		return errors.New("a stream has no image, no info, no working set and no order before it was read")
	}
	im.progress = newMeter(im.o.Progress, "import", "bytes", 0)
	_, err := im.prepareDedup(ctx)
	return err
}

// streamPages stores the pages of a stream. Where they are stored is kept by page (eight bytes each), and
// becomes the page map when the stream has ended.
func (im *importer) streamPages(g *tasks) error {
	h := newOrdered(g, runtime.GOMAXPROCS(0), 4*runtime.GOMAXPROCS(0), func() func(*chunk) error {
		hasher := pack.NewHasher(im.s.key)
		return func(c *chunk) error {
			c.sum(hasher)
			return nil
		}
	})
	var end StreamEnd
	g.run(func() (err error) {
		s := &chunker{im: im, to: h}
		if end, err = im.src.Stream.Read(g.ctx, s.put); err != nil {
			return err // which ends receive too
		}
		if err := s.flush(); err != nil {
			return err
		}
		h.end()
		return nil
	})
	last := uint64(0)
	for {
		c, ok, err := h.receive()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if last, err = im.streamed(c, last); err != nil {
			return err
		}
		if len(im.dedup.fresh) > im.s.limits.freshPages {
			if err := im.settle(); err != nil {
				return err
			}
		}
	}
	return im.endStream(end, last)
}

// chunker cuts a stream into chunks.
type chunker struct {
	im  *importer
	to  *ordered[*chunk]
	cur *chunk
}

func (s *chunker) put(gfn uint64, pages []byte) error {
	if len(pages)%PageSize != 0 || gfn >= maxPages || uint64(len(pages)/PageSize) > maxPages-gfn {
		return &ImageError{Path: s.im.src.Memory, Why: "it has a page beyond 16 TiB"}
	}
	for ; len(pages) > 0; pages = pages[PageSize:] {
		if s.cur == nil {
			s.cur = newChunk(&s.im.pool)
		}
		copy(s.cur.page(len(s.cur.gfns)), pages[:PageSize])
		s.cur.gfns = append(s.cur.gfns, gfn)
		gfn++
		if len(s.cur.gfns) == chunkPages {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush hands on what has come.
func (s *chunker) flush() error {
	c := s.cur
	s.cur = nil
	if c == nil {
		return nil
	}
	return s.to.submit(c)
}

// sum finds out what the pages of a chunk are, which are in its buffer already.
func (c *chunk) sum(h *pack.Hasher) {
	for i := range c.gfns {
		if c.kinds[i] = pageZero; !isZero(c.page(i)) {
			c.kinds[i] = pageData
			c.hashes[i] = h.Sum(c.page(i))
		}
	}
}

// streamed stores the pages of a chunk. last is the greatest page so far.
func (im *importer) streamed(c *chunk, last uint64) (uint64, error) {
	if err := im.dedup.find(im.packer.g.ctx, c, im.found[:]); err != nil {
		return last, err
	}
	for i, gfn := range c.gfns {
		last = max(last, gfn)
		ref := uint64(0)
		if c.kinds[i] == pageData {
			var err error
			if ref, err = im.page(c, i); err != nil {
				return last, err
			}
		}
		if ref != 0 || im.refs.get(gfn) != 0 {
			im.refs.set(gfn, ref)
		}
	}
	n := int64(len(c.gfns)) * PageSize
	im.stats.ReadBytes += n
	im.progress.add(n)
	c.release()
	return last, nil
}

// endStream makes the page map.
func (im *importer) endStream(end StreamEnd, last uint64) error {
	why := badSize(end.Size)
	if why == "" && (im.stats.ReadBytes > 0 && last >= uint64(end.Size)/PageSize) {
		why = "it has a page beyond its own end"
	}
	if why != "" {
		return &ImageError{Path: im.src.Memory, Why: why}
	}
	im.src.Info = end.Info
	im.mem.pages = uint64(end.Size) / PageSize
	im.stats.MemoryBytes = end.Size
	if err := im.streamParent(); err != nil {
		return err
	}
	var tree *parentTree
	if im.parent != nil {
		tree = im.parent.tree
	}
	im.tree = newTreeWriter(im.mem.pages, pack.NewHasher(im.s.key), im.findNode(im.packer.g.ctx), tree)
	for _, n := range sortedKeys(im.refs) {
		l := im.refs[n]
		for _, ref := range l {
			if ref != 0 {
				im.dataPages++
			}
		}
		if err := im.tree.add(n, l); err != nil {
			return err
		}
	}
	return nil
}

// streamParent finds the checkpoint whose page map is shared where it did not change. By now the refs of the
// pages say what is alike.
func (im *importer) streamParent() (err error) {
	var gfns []uint64
	leaves := sortedKeys(im.refs)
	step := max(len(leaves)/samplePages, 1)
	for i := 0; i < len(leaves); i += step {
		if k := slices.IndexFunc(im.refs[leaves[i]][:], func(ref uint64) bool { return ref != 0 }); k >= 0 {
			gfns = append(gfns, leaves[i]*LeafPages+uint64(k))
		}
	}
	list := im.s.alike(int64(im.mem.pages) * PageSize)
	if len(list) == 0 {
		return nil
	}
	refs := make([]uint64, len(gfns))
	for i, gfn := range gfns {
		refs[i] = im.refs.get(gfn)
	}
	rankByPacks(list, refs)
	im.parent, err = im.s.mostAlike(im.packer.g.ctx, firstNames(list), len(gfns), func(p *pageMap, i int) bool {
		return p.ref(gfns[i]) == refs[i]
	})
	return err
}
