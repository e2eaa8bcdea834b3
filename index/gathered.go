package index

import (
	"context"

	"github.com/thawfs/thaw/index/pack"
)

// gathered is the packs that a gatherer fills: some have the pages, and another one the nodes of the page
// maps that refer to them, so that the first ones go as a whole once all of their pages have moved on.
type gathered struct {
	s    *Store
	dry  bool   // it is only counted
	most uint32 // pages of a pack

	w      *pack.Writer // nil: nothing was added since the last part
	enc    *pack.Encoder
	block  pack.EncodedBlock
	pages  [][]byte // of the present block
	hashes []pack.Hash
	number uint64
	slots  uint32 // of the present part

	records *pack.Writer         // nil: no node was added, or it is finished
	nodes   map[pack.Hash]uint64 // by content

	written []uint64          // packs that are finished
	ids     map[uint64]uint64 // identities of packs that roots will refer to
	bytes   int64
}

// add stores a page, which stays as it is until flush, and returns its ref.
func (o *gathered) add(ctx context.Context, page []byte, hash pack.Hash) (ref uint64, err error) {
	if o.w == nil && !o.dry {
		if err := o.create(ctx); err != nil {
			return 0, err
		}
	}
	ref = uint64(pack.MakeRef(o.number, o.slots))
	o.slots++
	if o.dry {
		return ref, nil
	}
	o.pages, o.hashes = append(o.pages, page), append(o.hashes, hash)
	if len(o.pages) == pack.BlockPages {
		return ref, o.flush()
	}
	return ref, nil
}

func (o *gathered) create(ctx context.Context) (err error) {
	if o.enc, err = pack.NewImportEncoder(o.s.file.Profile); err != nil {
		return err
	}
	if o.number, err = o.s.alloc.take(ctx); err != nil {
		return err
	}
	o.w, err = o.s.createPack(ctx, o.number)
	return err
}

// flush ends the present block.
func (o *gathered) flush() error {
	if len(o.pages) == 0 {
		return nil
	}
	if err := o.enc.EncodeBlock(&o.block, o.pages); err != nil {
		return err
	}
	_, err := o.w.AppendBlock(&o.block, o.hashes)
	o.pages, o.hashes = o.pages[:0], o.hashes[:0]
	return err
}

// record stores a node.
func (o *gathered) record(ctx context.Context, kind uint32, code []byte) (uint64, error) {
	if o.records == nil {
		number, err := o.s.alloc.take(ctx)
		if err != nil {
			return 0, err
		}
		if o.records, err = o.s.createPack(ctx, number); err != nil {
			return 0, err
		}
		o.nodes = map[pack.Hash]uint64{}
	}
	n, err := o.records.AppendRecord(kind, code)
	if err != nil {
		return 0, err
	}
	ref := uint64(pack.MakeRef(o.records.Number(), uint32(n)))
	if hash, named := nodeHash(pack.NewHasher(o.s.key), kind, code); named {
		o.nodes[hash] = ref
	}
	return ref, nil
}

// room sees to it that the next n pages come into one pack.
func (o *gathered) room(ctx context.Context, g *gatherer, n int) error {
	if o.slots == 0 || int(o.slots)+n <= int(o.most) {
		return nil
	}
	return o.part(ctx, g)
}

// part makes a pack durable and known to the store, puts its pages into clusters, and reads that back.
func (o *gathered) part(ctx context.Context, g *gatherer) error {
	o.slots = 0
	if o.w == nil {
		return nil
	}
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.finish(&o.w); err != nil {
		return err
	}
	enc, err := pack.NewEncoder(o.s.file.Profile)
	if err != nil {
		return err
	}
	before, after, err := o.s.renew(ctx, o.number, func(old *pack.Reader, w *pack.Writer) error {
		return pack.Rewrite(ctx, old, w, enc, o.s.key, pack.Keep{
			Tier: func(uint32) pack.Tier { return pack.TierCold },
			Step: func() error { return g.r.wait(ctx) },
		})
	}, func(old, renewed *pack.Reader) error { return g.r.proofread(ctx, old, renewed) })
	o.bytes += after.bytes - before.bytes
	return err
}

// finish makes a pack durable.
func (o *gathered) finish(w **pack.Writer) error {
	p := *w
	*w = nil
	size, err := p.Finish()
	if err != nil {
		return err
	}
	o.s.packs.addWritten(p, size)
	o.ids[p.Number()] = p.ID()
	o.written = append(o.written, p.Number())
	o.bytes += size
	return nil
}

// commit makes all packs durable. There may be no nodes: of leaves in branches that there are already.
func (o *gathered) commit(ctx context.Context, g *gatherer) error {
	if o.records != nil {
		if err := o.finish(&o.records); err != nil {
			return err
		}
	}
	return o.part(ctx, g)
}

// keepPages is how many pages must be in a pack for it to be kept.
const keepPages = 256

// keep makes durable what there is of a part, if it is much. The pages are not in clusters yet.
func (o *gathered) keep() error {
	if o.w == nil || o.slots < min(keepPages, o.most) {
		return nil
	}
	if err := o.flush(); err != nil {
		return err
	}
	return o.finish(&o.w)
}

// abort abandons what was not finished.
func (o *gathered) abort() {
	for _, w := range []*pack.Writer{o.w, o.records} {
		if w != nil {
			_ = w.Abort()
		}
	}
}

// undo removes what was finished, and nothing refers to.
func (o *gathered) undo(ctx context.Context) {
	for _, number := range o.written {
		if _, err := o.s.packs.doom(ctx, number); err != nil {
			o.s.log.Warn("an unused pack cannot be removed now; thaw gc removes it", "pack", number, "err", err)
		}
	}
}
