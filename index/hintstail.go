package index

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// hintTail is what is known of the packs that the index on disk does not have: the newest. An import does
// not wait until its pages are in the index. The next ones read their hashes from the packs, which is
// quick as long as they are few; when they are many, all of them go into the index at once.
type hintTail struct {
	keys  *memKeys
	packs map[uint64]packInfo
	pages int
}

// Bounds of the tail: 1,048,576 pages take about 40 MiB, and a tenth of a second to read.
const (
	maxTail      = 1 << 20
	maxTailPacks = 64
)

func newHintTail() *hintTail { return &hintTail{keys: newMemKeys(), packs: map[uint64]packInfo{}} }

// fits says whether so many more packs with these pages may be in the tail.
func (t *hintTail) fits(packs, pages, maxPages int) bool {
	return maxPages > 0 && len(t.packs)+packs <= maxTailPacks && t.pages+pages <= maxPages
}

// extend adds packs to the tail, all or none: false if there are too many.
func (h *hints) extend(ctx context.Context, numbers []uint64) (bool, error) {
	if len(numbers) == 0 {
		return true, nil
	}
	pages := 0
	for _, n := range numbers {
		if !h.tail.fits(len(numbers), pages, h.s.limits.tailPages) {
			return false, nil
		}
		p, done, err := h.s.packs.use(ctx, n, 0)
		if err != nil {
			continue // who reads its hashes says so
		}
		pages += p.Slots()
		done()
	}
	if !h.tail.fits(len(numbers), pages, h.s.limits.tailPages) {
		return false, nil
	}
	for _, n := range numbers {
		err := h.s.eachHint(ctx, n,
			h.tail.keys.addPage,
			func(sum pack.Hash, ref pack.Ref) { h.tail.keys.put(nodeRow(sum, uint64(ref))) })
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if err != nil {
			h.s.log.Error("a pack cannot be indexed", "pack", n, "err", err)
		}
		h.tail.packs[n], _ = h.s.packs.info(n)
	}
	h.tail.pages += pages
	return true, nil
}

// unknown returns the packs that neither the index nor the tail has.
func (h *hints) unknown() (numbers []uint64) {
	all, _ := h.s.packs.numbers()
	for _, n := range all {
		info, _ := h.s.packs.info(n)
		if in, ok := h.tail.packs[n]; ok && in.same(info) {
			continue
		}
		if !h.indexed[n] {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// all says whether all packs are to be in the index on disk.
func (h *hints) all() bool { return h.forced || h.s.limits.tailPages == 0 }

// wanted says whether the index on disk is needed although all packs are in the tail.
func (h *hints) wanted() bool {
	if h.all() || h.level == hintsMemory {
		return true
	}
	_, err := os.Lstat(h.dir)
	return !errors.Is(err, fs.ErrNotExist)
}

// write puts packs into an index, and notes that it has all of them. sem must be held.
func (h *hints) write(ctx context.Context, db keyStore, numbers []uint64, progress func(Progress)) error {
	if err := h.indexPacks(ctx, db, numbers, progress); err != nil {
		return err
	}
	var rows []row
	for _, n := range numbers {
		info, _ := h.s.packs.info(n)
		rows = append(rows, packRowOf(n, info))
		h.indexed[n] = true
	}
	return updateAll(ctx, db, rows)
}

// catchUp brings the index up to date with packs that were written since it was opened. sem must be held.
func (h *hints) catchUp(ctx context.Context, progress func(Progress)) error {
	unknown := h.unknown()
	if ok, err := h.extend(ctx, unknown); ok || err != nil {
		return err
	}
	for n := range h.tail.packs {
		unknown = append(unknown, n)
	}
	h.tail = newHintTail()
	slices.Sort(unknown)
	return h.write(ctx, h.db, slices.Compact(unknown), progress)
}
