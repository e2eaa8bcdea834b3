package index

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/thawfs/thaw/index/pack"
)

// sweepRows is how many rows are deleted at once.
const sweepRows = 1 << 15

// sweepIndex forgets the pages and nodes in the index that are not there any more, if something may
// have left such. Nothing depends on it but space: whoever finds a row compares what it points to.
func (s *Store) sweepIndex(ctx context.Context) error {
	_, stale, err := s.keys.get(metaKey(metaStale))
	if err != nil || !stale {
		return err
	}
	packs := newLazyPacks(ctx, s.packs)
	defer packs.release()
	var rows []row
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		defer func() { rows = rows[:0] }()
		return s.keys.update(rows)
	}
	for _, kind := range []byte{rowPage, rowNode} {
		err := s.keys.scan(kind, func(key, value []byte) error {
			if isThere(packs, kind, parseRef(value)) {
				return nil
			}
			rows = append(rows, row{key: append([]byte{kind}, key...)})
			if len(rows) < sweepRows {
				return nil
			}
			return flush()
		})
		if err != nil {
			return err
		}
	}
	rows = append(rows, row{key: metaKey(metaStale)})
	return flush()
}

// isThere says whether a page or record exists. Of a pack that cannot be read nobody knows: yes.
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

// remakeIndex throws the Badger index away and makes it again from packs and roots. The writer's
// lock must be held.
func (s *Store) remakeIndex(ctx context.Context, progress func(Progress)) error {
	if err := s.emptyIndex(); err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	numbers, _ := s.packs.numbers()
	m := newMeter(progress, "rebuild", "packs", int64(len(numbers)))
	// A crash before the end must not look like an index that knows all of this.
	rows := []row{{metaKey(metaVersion), []byte{keyVersion}}, {metaKey(metaNext), refValue(s.next)}}
	for _, n := range numbers {
		if err := s.indexPack(ctx, n); isCorrupt(err) {
			s.log.Error("a pack is damaged", "err", err)
		} else if err != nil {
			return fmt.Errorf("rebuild index: %w", err)
		}
		info, _ := s.packs.info(n)
		rows = append(rows, packRowOf(n, info))
		m.add(1)
	}
	if err := s.keys.update(rows); err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	return nil
}

// emptyIndex replaces the index by an empty one.
func (s *Store) emptyIndex() error {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	if s.keys != nil {
		err := s.keys.close()
		s.keys, s.keysErr = nil, err
		if err != nil {
			s.log.Warn("the old index did not close well", "err", err)
		}
	}
	dir := filepath.Join(s.dir, indexDirName)
	if err := os.RemoveAll(dir); err != nil {
		s.keysErr = err
		return err
	}
	keys, _, err := openKeyDB(dir, s.log)
	s.keys, s.keysErr = keys, err
	return err
}
