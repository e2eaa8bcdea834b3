package index

import (
	"context"

	"github.com/thawfs/thaw/index/pack"
)

// gathered is the packs that a gatherer fills: one has the pages, and the other one the nodes of the page
// maps that refer to them, so that the first one goes as a whole once all of its pages have moved on.
type gathered struct {
	s   *Store
	dry bool // it is only counted

	w      *pack.Writer // nil: nothing was added, or it is finished
	enc    *pack.Encoder
	block  pack.EncodedBlock
	pages  [][]byte // of the present block
	hashes []pack.Hash
	number uint64
	slots  uint32

	records *pack.Writer         // as w
	nodes   map[pack.Hash]uint64 // by content

	ids   map[uint64]uint64 // identities of what is committed
	bytes int64
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

// commit makes the packs durable and known to the store, the one with its pages in clusters, and reads that
// back.
func (o *gathered) commit(ctx context.Context, r *repacker) error {
	o.ids = map[uint64]uint64{}
	for _, w := range []**pack.Writer{&o.records, &o.w} {
		if *w == nil {
			continue // page maps that are of leaves in branches that there are already
		}
		size, err := (*w).Finish()
		if err != nil {
			return err
		}
		o.s.packs.addWritten(*w, size)
		o.ids[(*w).Number()] = (*w).ID()
		o.bytes += size
		*w = nil
	}
	enc, err := pack.NewEncoder(o.s.file.Profile)
	if err != nil {
		return err
	}
	before, after, err := o.s.renew(ctx, o.number, func(old *pack.Reader, w *pack.Writer) error {
		return pack.Rewrite(ctx, old, w, enc, o.s.key, pack.Keep{
			Tier: func(uint32) pack.Tier { return pack.TierCold },
			Step: func() error { return r.wait(ctx) },
		})
	}, func(old, renewed *pack.Reader) error { return r.proofread(ctx, old, renewed) })
	o.bytes += after.bytes - before.bytes
	return err
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
	for _, number := range sortedKeys(o.ids) {
		if _, err := o.s.packs.doom(ctx, number); err != nil {
			o.s.log.Warn("an unused pack cannot be removed now; thaw gc removes it", "pack", number, "err", err)
		}
	}
}
