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
//   - Of the generations of a pack or root the highest sound one counts, and the others are removed.
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
			for _, old := range l.packs[n][1:] {
				if s.replaces(ctx, n, info, old) {
					s.tidy(ctx, pack.Name(n, old.generation))
				}
			}
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

// replaces says whether a pack is a newer generation of another one, and not another pack that was put
// beside it.
func (s *Store) replaces(ctx context.Context, number uint64, newer, older packInfo) bool {
	o, err := s.packs.openBlob(ctx, number, older.generation)
	if err != nil {
		return isCorrupt(err)
	}
	defer o.Close()
	n, err := s.packs.openBlob(ctx, number, newer.generation)
	if err != nil {
		return false
	}
	defer n.Close()
	if err := hasID(n, o.ID()); err != nil {
		s.log.Error("an older generation of a pack stays: the newer one is another pack", "err", err)
		return false
	}
	return true
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
	return errors.As(err, &c) || errors.As(err, &v) || errors.Is(err, blob.ErrNotFound)
}
