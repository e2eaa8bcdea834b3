package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// recover brings catalog and packs up to what the blobs say, which are the truth.
//
//   - A root is there: so the checkpoint is.
//   - Of two generations of a pack or root the higher one counts, if it is sound, and the others go.
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
	packs, err := s.choosePacks(ctx, l)
	if err != nil {
		return err
	}
	s.next = max(s.next, 1)
	for n, info := range packs {
		if info.generation == info.top {
			for _, old := range l.packs[n][1:] {
				s.tidy(ctx, pack.Name(n, old.generation))
			}
		}
		s.packs.add(n, info)
		s.next = max(s.next, n+1)
	}
	for name, e := range entries {
		if e.err == nil && e.root == e.all[0] {
			for _, old := range e.all[1:] {
				s.tidy(ctx, rootName(name, old.generation))
			}
		}
		s.cat.m[name] = e
	}
	return s.recoverKeys(ctx)
}

// tidy removes a blob that was replaced. Should that fail, it is no harm but to space.
func (s *Store) tidy(ctx context.Context, name string) {
	if err := s.blobs.Remove(ctx, name); err != nil && !errors.Is(err, blob.ErrNotFound) {
		s.log.Warn("an old generation stays until it can be removed", "blob", name, "err", err)
	}
}

// recoverKeys brings the index up to the packs that there are.
func (s *Store) recoverKeys(ctx context.Context) error {
	if s.keys == nil {
		return nil
	}
	indexed := map[uint64]packInfo{}
	v, known, err := s.keys.get(metaKey(metaNext))
	if err != nil {
		return err
	}
	if known {
		s.next = max(s.next, parseRef(v))
	}
	err = s.keys.scan(rowPack, func(key, value []byte) error {
		if len(key) == 8 {
			indexed[binary.BigEndian.Uint64(key)] = parsePackRow(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rows := []row{{metaKey(metaVersion), []byte{keyVersion}}}
	stale := false
	numbers, _ := s.packs.numbers()
	for _, number := range numbers {
		info, _ := s.packs.info(number)
		was, known := indexed[number]
		delete(indexed, number)
		switch {
		case known && was.same(info):
			continue
		case known:
			stale = true // it was compacted: pages that the index knows may be gone
		default:
			if err := s.indexPack(ctx, number); isCorrupt(err) {
				s.log.Error("a pack is damaged", "err", err)
			} else if err != nil {
				return err
			}
		}
		rows = append(rows, packRowOf(number, info))
	}
	for number := range indexed {
		rows = append(rows, row{key: packKey(number)})
		stale = true
	}
	if stale {
		rows = append(rows, row{metaKey(metaStale), []byte{1}})
	}
	return s.keys.update(rows)
}

func packRowOf(number uint64, info packInfo) row {
	v := binary.AppendUvarint(nil, uint64(info.generation))
	return row{packKey(number), binary.AppendUvarint(v, uint64(info.bytes))}
}

// parsePackRow gives what matches no pack for a row that is malformed.
func parsePackRow(v []byte) packInfo {
	g, w := binary.Uvarint(v)
	if w <= 0 {
		return packInfo{bytes: -1}
	}
	n, w := binary.Uvarint(v[w:])
	if w <= 0 {
		return packInfo{bytes: -1}
	}
	return packInfo{generation: uint32(g), bytes: int64(n)}
}

// indexPack puts the pages and nodes of a pack into the index.
func (s *Store) indexPack(ctx context.Context, number uint64) error {
	e, err := s.packs.pin(ctx, number)
	if err != nil {
		return err
	}
	defer s.packs.unpin(e)
	p := e.acquire()
	defer p.release()
	hashes, err := p.Hashes()
	if err != nil {
		return err
	}
	rows := make([]row, 0, len(hashes))
	for slot, h := range hashes {
		if !p.Dead(uint32(slot)) {
			key := pageKey(h)
			rows = append(rows, row{key[:], refValue(uint64(pack.MakeRef(number, uint32(slot))))})
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
			ref := uint64(pack.MakeRef(number, uint32(i)))
			rows = append(rows, row{nodeKey(h), binary.BigEndian.AppendUint64(nil, ref)})
		}
	}
	sortRows(rows)
	if err := s.keys.update(rows); err != nil {
		return fmt.Errorf("index pack %d: %w", number, err)
	}
	return ctx.Err()
}

// nodeHash names a node by its content. Leaves that are a difference from another are found by
// nobody, and have no name.
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
