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
	pages *hintTable
	nodes map[pack.Hash]uint64
	packs map[uint64]packInfo // that were added
	slots int                 // of these
}

// Bounds of the tail. 4,194,304 pages take 45 MB, and half a second to read.
const (
	maxTail      = 4 << 20
	maxTailPacks = maxHintPacks
	// slowTailPacks is the bound where each read takes long: the index is on the disk of the store's directory.
	slowTailPacks = 4
)

func newHintTail() *hintTail {
	return &hintTail{
		pages: newHintTable(0), nodes: map[pack.Hash]uint64{}, packs: map[uint64]packInfo{},
	}
}

// extend adds packs to the tail, all or none: false if there are too many.
func (h *hints) extend(ctx context.Context, numbers []uint64) (bool, error) {
	if len(numbers) == 0 {
		return true, nil
	}
	slots := h.tail.slots
	most := maxTailPacks
	if h.s.blocks != nil {
		most = slowTailPacks
	}
	fits := func() bool {
		return slots <= h.s.limits.tailPages && len(h.tail.pages.packs)+len(numbers) <= most
	}
	for _, n := range numbers {
		if !fits() {
			return false, nil
		}
		p, done, err := h.s.packs.use(ctx, n, 0)
		if err != nil {
			continue // it is an error where its hashes are read
		}
		slots += p.Slots()
		done()
	}
	if !fits() {
		return false, nil
	}
	if slots > h.tail.pages.room() {
		numbers = slices.Concat(sortedKeys(h.tail.packs), numbers)
		numbers = slices.DeleteFunc(numbers, h.gone)
		clear(h.tail.packs)
		h.tail.pages = nil // before another one is made
		h.tail.pages = newHintTable(max(slots, min(2*h.tail.slots, h.s.limits.tailPages)))
	}
	h.tail.slots = slots
	return true, h.read(ctx, numbers)
}

// read adds what packs hold to the tail, which has room for it.
func (h *hints) read(ctx context.Context, numbers []uint64) error {
	t := h.tail
	for _, n := range numbers {
		t.pages.packs = append(t.pages.packs, n)
		err := h.s.eachHint(ctx, n,
			func(sum pack.Hash, ref pack.Ref) { t.pages.add(sum, ref.Slot()) },
			func(sum pack.Hash, ref pack.Ref) { t.nodes[sum] = uint64(ref) })
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			h.s.log.Error("a pack cannot be indexed", "pack", n, "err", err)
		}
		t.packs[n], _ = h.s.packs.info(n)
	}
	return nil
}

// gone says whether a pack was removed.
func (h *hints) gone(number uint64) bool { return !h.s.packs.has(number) }

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
	if !h.all() {
		if ok, err := h.extend(ctx, unknown); ok || err != nil {
			return err
		}
	}
	numbers := slices.Concat(sortedKeys(h.tail.packs), unknown)
	numbers = slices.DeleteFunc(numbers, h.gone)
	h.tail = newHintTail()
	slices.Sort(numbers)
	return h.write(ctx, h.db, slices.Compact(numbers), progress)
}
