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
	clear(im.dedup.fresh)
	im.dedup.ask = true
	return nil
}

// index tells the index that the packs which it knows of this import are there to stay. The others are
// found by the next import.
func (im *importer) index(stored []storedNode) {
	if im.packer.indexed == 0 {
		return
	}
	// The import is done, and is not undone because of a hint.
	ctx := context.Background()
	var rows []row
	if now, err := im.s.hints.begun(ctx); err == nil && now == im.epoch {
		for _, n := range im.packer.written[:im.packer.indexed] {
			info, _ := im.s.packs.info(n)
			rows = append(rows, packRowOf(n, info))
		}
	}
	for _, n := range stored {
		rows = append(rows, nodeRow(n.hash, n.ref))
	}
	sortRows(rows)
	if err := im.s.hints.update(ctx, rows); err != nil {
		im.s.log.Warn("the index is out of date until the next import", "err", err)
	}
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
