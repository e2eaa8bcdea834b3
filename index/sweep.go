package index

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/thawfs/thaw/index/pack"
)

// sweep removes the rows of deleted pages and nodes from the index, if there may be any. They cost only
// space, since users of a row compare what it points to. So sweep does not make an index if there is
// none, and only sets aside one that fails.
func (h *hints) sweep(ctx context.Context) error {
	if _, err := os.Stat(h.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := h.lock(ctx); err != nil {
		return err
	}
	defer h.unlock()
	if h.closed {
		return ErrClosed
	}
	if h.level == hintsMemory {
		return nil
	}
	db := h.db
	var err error
	if db == nil {
		db, err = h.begin(ctx)
	}
	if err == nil {
		if err = h.sync(ctx, db, nil); err == nil {
			err = h.sweepRows(ctx, db)
		}
	}
	if err == nil {
		h.db = db
		return nil
	}
	h.db = nil
	return h.fail(ctx, db, err)
}

// sweepRows looks at every row that points somewhere.
func (h *hints) sweepRows(ctx context.Context, db keyStore) error {
	stale, err := db.get(ctx, metaKey(metaStale))
	if err != nil || stale == nil {
		return err
	}
	packs := newLazyPacks(ctx, h.s.packs)
	defer packs.release()
	for _, kind := range []byte{rowPage, rowNode} {
		err := scanAll(ctx, db, kind, func(rows []row) error {
			var gone []row
			for _, r := range rows {
				if !isThere(packs, kind, parseRef(r.value)) {
					gone = append(gone, row{key: r.key})
				}
			}
			return db.update(ctx, gone)
		})
		if err != nil {
			return err
		}
	}
	return db.update(ctx, []row{{key: metaKey(metaStale)}})
}

// isThere says whether a page or record exists. If its pack cannot be read, the answer is yes.
func isThere(packs *lazyPacks, kind byte, ref uint64) bool {
	if !packs.set.has(ref >> 24) {
		return false
	}
	r, err := packs.get(ref >> 24)
	if err != nil {
		return true
	}
	n := pack.Ref(ref).Slot()
	if kind == rowPage {
		return !r.Dead(n)
	}
	return int(n) < r.Records() && r.Record(int(n)).Stored > 0
}
