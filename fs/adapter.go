package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index"
)

// NewStore makes a Store for the tree from an open index.Store, which only has to be open for reading.
// The caller closes that after the server's Wait has returned.
func NewStore(s *index.Store) Store {
	return indexStore{s, func(index.Checkpoint) Names { return Names{} }}
}

type indexStore struct {
	store *index.Store
	names func(index.Checkpoint) Names
}

var _ Store = indexStore{}

func (s indexStore) List(ctx context.Context) ([]Checkpoint, error) {
	all, err := s.store.List(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Checkpoint, len(all))
	for i, c := range all {
		info, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("info.json of %s: %w", c.Name, err)
		}
		names := s.names(c)
		if err := names.check(); err != nil {
			return nil, fmt.Errorf("names of %s: %w", c.Name, err)
		}
		list[i] = Checkpoint{
			Name:        c.Name,
			ID:          c.ID,
			Revision:    c.Generation,
			MemoryBytes: c.MemoryBytes,
			DataPages:   c.DataPages,
			Created:     c.Created,
			Files:       c.Files,
			WorkingSet:  c.WorkingSet != nil,
			Info:        append(info, '\n'),
			Names:       names,
		}
	}
	return list, nil
}

func (s indexStore) OpenImage(ctx context.Context, c Checkpoint) (Image, error) {
	img, err := s.store.OpenImageOf(ctx, version(c))
	switch {
	case errors.Is(err, index.ErrNotFound):
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, index.ErrChanged):
		err = fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	if err != nil {
		return nil, err
	}
	return indexImage{img}, nil
}

func (s indexStore) OpenFile(ctx context.Context, c Checkpoint, file string) (File, error) {
	return s.store.OpenFileOf(ctx, version(c), file)
}

// version names a checkpoint of the tree in the store, where the name may belong to another one now.
func version(c Checkpoint) index.Version {
	return index.Version{Name: c.Name, ID: c.ID, Generation: c.Revision}
}

// indexImage is an index.Image whose locality blocks are named by one of their pages.
type indexImage struct{ *index.Image }

var _ Image = indexImage{}

func (m indexImage) Neighbours(gfn uint64, dst []uint64) []uint64 {
	b, ok := m.Image.Block(gfn)
	if !ok {
		return dst
	}
	return m.Image.BlockGFNs(b, dst)
}

func (m indexImage) ReadNeighbours(gfn uint64, p *Piece) error {
	b, ok := m.Image.Block(gfn)
	if !ok {
		p.GFNs, p.Pages = p.GFNs[:0], p.Pages[:0]
		return nil
	}
	return m.Image.ReadBlock(b, p)
}

func (m indexImage) Local() bool {
	return m.Image.Layout().Local()
}
