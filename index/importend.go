package index

import (
	"context"
	"errors"

	"github.com/thawfs/thaw/index/pack"
)

// findNode returns the function that finds a stored node by its content. What is damaged is not shared
// but stored again.
func (im *importer) findNode(ctx context.Context) func(pack.Hash) (uint64, error) {
	hasher := pack.NewHasher(im.s.key)
	return func(h pack.Hash) (uint64, error) {
		ref, err := im.s.hints.node(ctx, h)
		if err != nil || !im.s.packs.has(ref>>24) {
			return 0, err
		}
		p, done, err := im.s.packs.use(ctx, ref>>24, im.ids[ref>>24])
		if err != nil {
			return 0, ignoreDamage(err)
		}
		defer done()
		// The index may be out of date and the record gone: only the content proves it.
		record := int(pack.Ref(ref).Slot())
		code, err := p.ReadRecord(record, nil)
		if err != nil {
			return 0, ignoreDamage(err)
		}
		if is, named := nodeHash(hasher, p.Record(record).Kind, code); !named || is != h {
			return 0, nil
		}
		return ref, nil
	}
}

// settle waits until the index knows everything stored so far, which dedup forgets then, and begins a new
// pack.
func (im *importer) settle() error {
	if err := im.packer.drain(); err != nil {
		return err
	}
	if err := im.s.hints.refresh(im.packer.g.ctx, nil); err != nil {
		return err
	}
	clear(im.dedup.fresh)
	im.dedup.ask = true
	return nil
}

// undo removes the packs of an import that failed. What it cannot remove now, GC does.
func (im *importer) undo() {
	if im.packer == nil {
		return
	}
	im.packer.abort()
	ctx := context.Background() // also when the import was cancelled
	var errs []error
	for _, n := range append(im.added, im.packer.written...) {
		_, err := im.s.packs.doom(ctx, n) // no harm if it is done twice
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		im.s.log.Warn("a pack of the failed import cannot be removed now; thaw gc removes it", "err", err)
	}
}
