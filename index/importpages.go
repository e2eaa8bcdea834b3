package index

import (
	"runtime"

	"github.com/thawfs/thaw/index/pack"
)

// pages reads the image and stores what is new of it.
func (im *importer) pages(g *group) error {
	h := newOrdered(g, runtime.GOMAXPROCS(0), 4*runtime.GOMAXPROCS(0), func() func(*chunkJob) error {
		hasher := pack.NewHasher(im.s.key)
		return func(j *chunkJob) error {
			skip := im.hotSet
			if j.hot {
				skip = nil
			}
			return j.fill(im.mem, hasher, skip)
		}
	})
	g.run(func() error {
		defer h.end()
		return im.cut(h)
	})
	wasHot := len(im.hot) > 0
	for {
		j, ok, err := h.receive()
		if err != nil {
			return err
		}
		if !ok {
			return im.endLeaf()
		}
		if wasHot && !j.hot {
			// Blocks do not mix what was used together with what was not.
			if err := im.packer.flush(); err != nil {
				return err
			}
		}
		wasHot = j.hot
		if err := im.chunk(j.chunk, j.hot); err != nil {
			return err
		}
		if len(im.dedup.fresh) > im.s.limits.freshPages {
			if err := im.settle(); err != nil {
				return err
			}
		}
	}
}

// chunkJob is a chunk, of the working set or of the rest.
type chunkJob struct {
	*chunk
	hot bool
}

// cut sends the image on its way: the working set, then everything by guest frame number.
func (im *importer) cut(h *ordered[*chunkJob]) error {
	for _, part := range []struct {
		runs []Run
		hot  bool
	}{{im.hot, true}, {im.extents, false}} {
		k := chunker{pool: &im.pool, emit: func(c *chunk) error {
			return h.submit(&chunkJob{c, part.hot})
		}}
		for _, r := range part.runs {
			if err := k.run(r); err != nil {
				return err
			}
		}
		if err := k.flush(); err != nil {
			return err
		}
	}
	return nil
}

// chunk takes the pages of a chunk in their order.
func (im *importer) chunk(c *chunk, hot bool) error {
	for i, gfn := range c.gfns {
		var ref uint64
		var err error
		switch c.kinds[i] {
		case pageSkip:
			ref = im.hotRefs[gfn]
		case pageData:
			if ref, err = im.page(c, i); err != nil {
				return err
			}
		}
		if hot {
			if ref != 0 {
				im.hotRefs[gfn] = ref
			}
			continue
		}
		if err := im.place(gfn, ref); err != nil {
			return err
		}
	}
	if !hot {
		im.progress.add(int64(len(c.gfns)) * PageSize)
	}
	c.release()
	return nil
}

// page finds or stores a page that is not zero.
func (im *importer) page(c *chunk, i int) (ref uint64, err error) {
	ref, err = im.dedup.find(c.gfns[i], c.hashes[i])
	if err != nil {
		return 0, err
	}
	if ref != 0 {
		im.stats.DupPages++
		return ref, nil
	}
	if ref, err = im.packer.add(c, i); err != nil {
		return 0, err
	}
	im.stats.NewPages++
	im.dedup.add(c.hashes[i], ref)
	return ref, nil
}

// place puts a ref into the page map. gfns ascend.
func (im *importer) place(gfn, ref uint64) error {
	if n := gfn / LeafPages; n != im.leafNo {
		if err := im.endLeaf(); err != nil {
			return err
		}
		im.leafNo = n
	}
	im.leaf[gfn%LeafPages] = ref
	if ref != 0 {
		im.dataPages++
	}
	return nil
}

func (im *importer) endLeaf() error {
	err := im.tree.add(im.leafNo, &im.leaf)
	im.leaf = leaf{}
	return err
}
