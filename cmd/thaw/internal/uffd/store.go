package uffd

import (
	"context"

	"github.com/thawfs/thaw/index"
)

// storeSource is an image in a store, which this process has opened for reading.
type storeSource struct {
	*index.Image
	store *index.Store
}

// OpenStore opens a checkpoint of a store. Close closes both.
func OpenStore(ctx context.Context, s *index.Store, name string) (Source, error) {
	m, err := s.OpenImage(ctx, name)
	if err != nil {
		return nil, err
	}
	src := &storeSource{Image: m, store: s}
	src.prepare()
	return src, nil
}

// prepare has the image make what it needs to know the neighbours of pages: the first who asks waits for
// that, and no fault should.
func (s *storeSource) prepare() {
	for gfn := range s.Pages() {
		if b, ok := s.Block(gfn); ok {
			s.BlockGFNs(b, nil)
			return
		}
	}
}

func (s *storeSource) Read(first uint64, dst []byte) error { return s.ReadRange(first, dst) }

func (s *storeSource) Page(gfn uint64, b *Buffer) ([]byte, error) {
	b.gfn = gfn
	_, at, cold := s.Cluster(gfn)
	if b.cold = cold; cold { // decoding one page of a cluster decodes all
		if err := s.ReadCluster(gfn, &b.cluster); err != nil {
			return nil, err
		}
		return b.cluster.Pages[at*index.PageSize:][:index.PageSize], nil
	}
	return b.page[:], s.ReadPage(gfn, b.page[:])
}

func (s *storeSource) Beside(b *Buffer) []uint64 {
	b.beside = b.beside[:0]
	if block, ok := s.Block(b.gfn); ok {
		b.beside = s.BlockGFNs(block, b.beside)
	}
	return b.beside
}

func (s *storeSource) Near(b *Buffer) *index.Piece {
	if b.cold {
		s.ClusterPages(&b.cluster, &b.piece)
		return &b.piece
	}
	block, ok := s.Block(b.gfn)
	if !ok {
		return nil
	}
	// Of what cannot be read nobody has asked for anything; it is left out.
	_ = s.ReadBlock(block, &b.piece)
	return &b.piece
}

func (s *storeSource) Set() Pieces { return feedPieces{s.WorkingSetFeed()} }

func (s *storeSource) SetRuns() []index.Run { return s.WorkingSet() }

func (s *storeSource) All() Pieces { return feedPieces{s.EagerFeed()} }

func (s *storeSource) Close() error {
	err := s.Image.Close()
	if cerr := s.store.Close(); err == nil {
		err = cerr
	}
	return err
}

type feedPieces struct{ index.Feed }

func (f feedPieces) Read(ctx context.Context, i int, p *index.Piece) error {
	return index.ReadPiece(ctx, f.Feed, i, p)
}
