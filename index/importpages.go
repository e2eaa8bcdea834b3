package index

import (
	"runtime"

	"github.com/thawfs/thaw/index/pack"
)

// pages reads the image and stores its new pages.
func (im *importer) pages(g *tasks) error {
	h := newOrdered(g, runtime.GOMAXPROCS(0), 4*runtime.GOMAXPROCS(0), func() func(*chunkJob) error {
		hasher := pack.NewHasher(im.s.key)
		return func(j *chunkJob) error {
			skip := &im.grouped
			if j.part < len(im.order) {
				skip = nil
			}
			return j.fill(im.mem, hasher, skip)
		}
	})
	g.run(func() error {
		defer h.end()
		return im.cut(h)
	})
	for part := 0; ; {
		j, ok, err := h.receive()
		if err != nil {
			return err
		}
		if !ok {
			return im.endLeaf()
		}
		if j.part != part {
			// A block has no pages of two groups.
			if err := im.packer.flush(); err != nil {
				return err
			}
			part = j.part
		}
		if err := im.chunk(j.chunk, j.part < len(im.order)); err != nil {
			return err
		}
		if len(im.dedup.fresh) > im.s.limits.freshPages {
			if err := im.settle(); err != nil {
				return err
			}
		}
	}
}

// chunkJob is a chunk of a group, or of the rest, which is the part behind the last group.
type chunkJob struct {
	*chunk
	part int
}

// cut cuts the image into chunks: first the groups, then everything by guest frame number.
func (im *importer) cut(h *ordered[*chunkJob]) error {
	for part := range len(im.order) + 1 {
		runs := im.extents
		if part < len(im.order) {
			runs = im.order[part].Runs
		}
		for c := range chunks(runs, &im.pool) {
			if err := h.submit(&chunkJob{c, part}); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunk takes the pages of a chunk in their order. Those of groups get their place in the page map
// when their turn by number comes.
func (im *importer) chunk(c *chunk, grouped bool) error {
	if err := im.dedup.find(im.packer.g.ctx, c, im.found[:]); err != nil {
		return err
	}
	read := 0
	for i, gfn := range c.gfns {
		var ref uint64
		var err error
		switch c.kinds[i] {
		case pageSkip:
			ref = im.refs.get(gfn)
		case pageData:
			if ref, err = im.page(c, i); err != nil {
				return err
			}
			read++
		case pageZero:
			read++
		}
		if grouped {
			if ref != 0 {
				im.refs.set(gfn, ref)
			}
			continue
		}
		if err := im.place(gfn, ref); err != nil {
			return err
		}
	}
	im.progress.add(int64(read) * PageSize)
	c.release()
	return nil
}

// page finds or stores a page that is not zero.
func (im *importer) page(c *chunk, i int) (ref uint64, err error) {
	if ref = im.found[i]; ref == 0 {
		ref = im.dedup.fresh[c.hashes[i]] // also of this same chunk
	}
	if ref != 0 {
		im.stats.DupPages++
		return ref, nil
	}
	if ref, err = im.packer.add(c, i); err != nil {
		return 0, err
	}
	im.stats.NewPages++
	im.dedup.fresh[c.hashes[i]] = ref
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
