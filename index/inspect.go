package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// Inspect looks at one checkpoint closely: it reads its page map.
func (s *Store) Inspect(ctx context.Context, name string) (Details, error) {
	m, err := s.OpenImage(ctx, name)
	if err != nil {
		return Details{}, err
	}
	defer m.Close()
	d := Details{Checkpoint: m.entry.Checkpoint, Segment: m.root.top.segment, RootBytes: m.root.bytes}
	for _, b := range m.pages.branches {
		if b != nil {
			d.Leaves += len(b.leaves)
		}
	}
	for i, number := range m.root.top.packs {
		info, _ := s.packs.info(number)
		d.Packs = append(d.Packs, PackDetails{
			Number: number, Generation: info.generation, Bytes: info.bytes,
			Pages: uint64(len(m.reverse().packs[i])),
		})
	}
	return d, nil
}

// DropCaches evicts a checkpoint's packs and root from the host's page cache, for cold
// measurements.
func (s *Store) DropCaches(ctx context.Context, name string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	e, err := s.use(name)
	if err != nil {
		return err
	}
	defer s.unuse(e)
	names := []string{rootName(name, e.Generation)}
	for _, number := range e.packs {
		if info, ok := s.packs.info(number); ok {
			names = append(names, pack.Name(number, info.generation))
		}
	}
	for _, n := range names {
		// It was replaced by a compaction just now: nothing of it needs dropping.
		if err := blob.Drop(ctx, s.blobs, n); err != nil && !errors.Is(err, blob.ErrNotFound) {
			return fmt.Errorf("drop caches of %s: %w", name, err)
		}
	}
	return nil
}
