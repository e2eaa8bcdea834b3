package index

import (
	"context"
	"errors"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// recover fills catalog and packs from the blobs.
//
//   - A checkpoint exists if its root does.
//   - Of the generations of a pack or root the highest sound one counts, and the others are removed. Where a
//     pack has several, its writer was killed: the newest is read whole first.
//   - A pack that no root refers to stays until GC: it is garbage, of a checkpoint that was removed
//     or of an import that was interrupted, and nothing is deleted in passing.
func (s *Store) recover(ctx context.Context) error {
	l, err := s.list(ctx)
	if err != nil {
		return err
	}
	entries, err := s.readRoots(ctx, l.roots)
	if err != nil {
		return err
	}
	packs, err := s.choosePacks(ctx, l, entries)
	if err != nil {
		return err
	}
	used := uint64(0)
	for n, info := range packs {
		if info.generation == info.top {
			info = s.settle(ctx, n, info, l.packs[n][1:])
		}
		s.packs.add(n, info)
		used = max(used, n)
	}
	for name, e := range entries {
		if e.err == nil && e.root == e.all[0] {
			for _, old := range e.all[1:] {
				s.tidy(ctx, rootName(name, old.generation))
			}
		}
		s.cat.m[name] = e
	}
	return s.alloc.open(ctx, s.blobs, used)
}

// settle removes the older generations of a pack, and returns the one that counts. Who wrote the newest may
// have been killed before it had read it back: so that is done now.
func (s *Store) settle(ctx context.Context, number uint64, newer packInfo, older []packInfo) packInfo {
	for _, old := range older {
		switch replaces, backTo := s.replaces(ctx, number, newer, old); {
		case replaces:
			s.tidy(ctx, pack.Name(number, old.generation))
		case backTo:
			s.log.Error("the newest generation of a pack is damaged, and is removed: the one before is whole",
				"pack", pack.Name(number, newer.generation))
			old.top = newer.generation
			s.tidy(ctx, pack.Name(number, newer.generation))
			return old
		}
	}
	return newer
}

// replaces says whether a pack is a newer generation of another one, and not another pack that was put
// beside it, and is whole. If it is not, backTo says that the older one is, and has all of it.
func (s *Store) replaces(ctx context.Context, number uint64, newer, older packInfo) (replaces, backTo bool) {
	o, err := s.packs.openBlob(ctx, number, older.generation)
	if err != nil {
		return isCorrupt(err), false
	}
	defer o.Close()
	n, err := s.packs.openBlob(ctx, number, newer.generation)
	if err != nil {
		return false, false
	}
	defer n.Close()
	if err := hasID(n, o.ID()); err != nil {
		s.log.Error("an older generation of a pack stays: the newer one is another pack", "err", err)
		return false, false
	}
	if whole, err := s.isWhole(ctx, n); whole || err != nil {
		return whole, false
	}
	if whole, err := s.isWhole(ctx, o); !whole || err != nil || allOf(n).allIn(n, o) != nil {
		return false, false // each may have what the other one has lost
	}
	return false, true
}

// isWhole reads everything in a pack, up to the first damage.
func (s *Store) isWhole(ctx context.Context, p *pack.Reader) (whole bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	whole = true
	err = p.Verify(ctx, s.key, func(pack.Damage) {
		whole = false
		stop()
	}, nil)
	if !whole || isDamage(err) {
		return false, nil
	}
	return err == nil, err
}

// allOf is all that there is in a pack.
func allOf(p *pack.Reader) *livePack {
	all := &livePack{segment: true}
	for slot := range uint32(p.Slots()) {
		all.slots.add(slot)
	}
	for i := range p.Records() {
		all.records.add(uint32(i))
	}
	return all
}

// tidy removes a blob that was replaced. If that fails, it costs only space.
func (s *Store) tidy(ctx context.Context, name string) {
	if err := s.blobs.Remove(ctx, name); err != nil && !errors.Is(err, blob.ErrNotFound) {
		s.log.Warn("an old generation stays until it can be removed", "blob", name, "err", err)
	}
}

// indexPack puts the pages and nodes of a pack into an index. A pack that cannot be read is
// logged and left out. It fails if the index does, or if ctx ends.
func (s *Store) indexPack(ctx context.Context, k keyStore, number uint64) error {
	rows, err := s.packRows(ctx, number)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err != nil {
		s.log.Error("a pack cannot be indexed", "pack", number, "err", err)
	}
	sortRows(rows)
	return updateAll(ctx, k, rows)
}

// packRows returns the rows of a pack's pages and nodes; after an error those that could be read.
func (s *Store) packRows(ctx context.Context, number uint64) (rows []row, err error) {
	err = s.eachHint(ctx, number, func(h pack.Hash, ref pack.Ref) { rows = append(rows, pageRow(h, ref)) },
		func(h pack.Hash, ref pack.Ref) { rows = append(rows, nodeRow(h, uint64(ref))) })
	return rows, err
}

// eachHint calls page for each page of a pack that is there, and node for each node.
func (s *Store) eachHint(ctx context.Context, number uint64, page, node func(pack.Hash, pack.Ref)) error {
	p, done, err := s.packs.use(ctx, number, 0)
	if err != nil {
		return err
	}
	defer done()
	hashes, err := p.Hashes()
	if err != nil {
		return err
	}
	for slot, h := range hashes {
		if !p.Dead(uint32(slot)) {
			page(h, pack.MakeRef(number, uint32(slot)))
		}
	}
	hasher := pack.NewHasher(s.key)
	for i := range p.Records() {
		info := p.Record(i)
		if info.Stored == 0 || info.Kind != kindLeaf && info.Kind != kindBranch {
			continue
		}
		code, err := p.ReadRecord(i, nil)
		if err != nil {
			return err
		}
		if h, ok := nodeHash(hasher, info.Kind, code); ok {
			node(h, pack.MakeRef(number, uint32(i)))
		}
	}
	return nil
}

// nodeHash names a node by its content. A leaf that is stored as a difference has no name: it is never
// shared by content.
func nodeHash(h *pack.Hasher, kind uint32, code []byte) (pack.Hash, bool) {
	if len(code) == 0 || kind == kindLeaf && code[0] != leafFull {
		return pack.Hash{}, false
	}
	sum := h.Sum(code)
	// A leaf and a branch of the same bytes are not the same node.
	sum[0] ^= byte(kind)
	return sum, true
}

func isCorrupt(err error) bool {
	var c *CorruptError
	var v *pack.VersionError
	return errors.As(err, &c) || errors.As(err, &v) || errors.Is(err, blob.ErrNotFound) ||
		errors.Is(err, blob.ErrDamaged)
}
