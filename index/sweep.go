package index

import (
	"context"
	"encoding/binary"
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
		// A gc has time: it leaves no tail.
		if err = h.sync(ctx, db, nil, true); err == nil {
			err = h.sweepRows(ctx, db)
		}
	}
	if err == nil {
		h.db, h.current = db, true
		return nil
	}
	h.db = nil
	return h.fail(ctx, db, err)
}

// sweepShare is which part of the packs must have gone before their rows go. A sweep looks at all rows of
// the store, some millions a minute, so it should not follow each collection of a little.
const sweepShare = 16

// sweepRows looks at every row that points somewhere, if enough of them point to nothing.
func (h *hints) sweepRows(ctx context.Context, db keyStore) error {
	stale, err := db.get(ctx, metaKey(metaStale))
	if err != nil || stale == nil {
		return err
	}
	if gone, _ := binary.Uvarint(stale); gone*sweepShare < uint64(h.s.packs.bytes()) {
		return nil
	}
	there := newPresence(ctx, h.s.packs)
	for _, kind := range []byte{rowPage, rowNode} {
		err := scanAll(ctx, db, kind, func(rows []row) error {
			var gone []row
			for _, r := range rows {
				if !there.has(kind, parseRef(r.value)) {
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

// presence says of pages and nodes whether they are there. Rows come in the order of their hashes, which
// is none: the next one lies in any pack. So each pack is opened once, and what is dead of it is kept, a
// bit for each page.
type presence struct {
	ctx   context.Context
	set   *packSet
	packs map[uint64]*contents
	last  uint64
	of    *contents // of the last pack
}

// contents is what a pack has.
type contents struct {
	slots, records bitmap // that are dead
	numSlots       uint32
	numRecords     int
	unread         bool // it cannot be read: everything may be there
}

func newPresence(ctx context.Context, set *packSet) *presence {
	return &presence{ctx: ctx, set: set, packs: map[uint64]*contents{}}
}

// has says whether a page or node exists. If its pack cannot be read, the answer is yes.
func (p *presence) has(kind byte, ref uint64) bool {
	if number := ref >> 24; p.of == nil || number != p.last {
		c := p.packs[number]
		if c == nil {
			c = p.read(number)
			p.packs[number] = c
		}
		p.last, p.of = number, c
	}
	n := pack.Ref(ref).Slot()
	switch {
	case p.of.unread:
		return true
	case kind == rowPage:
		return n < p.of.numSlots && !p.of.slots.has(n)
	}
	return int(n) < p.of.numRecords && !p.of.records.has(n)
}

// read looks at the directory of a pack. One that does not exist has nothing.
func (p *presence) read(number uint64) *contents {
	c := &contents{}
	if !p.set.has(number) {
		return c
	}
	r, done, err := p.set.use(p.ctx, number, 0)
	if err != nil {
		c.unread = true
		return c
	}
	defer done()
	c.numSlots, c.numRecords = uint32(r.Slots()), r.Records()
	for slot := range c.numSlots {
		if r.Dead(slot) {
			c.slots.add(slot)
		}
	}
	for i := range c.numRecords {
		if r.Record(i).Stored == 0 {
			c.records.add(uint32(i))
		}
	}
	return c
}
