package index

import (
	"context"
	"errors"
)

// Image is the memory of a checkpoint, open for reading. Its page map is in RAM, its packs stay
// until Close. All methods but Close may be called by many goroutines at once.
type Image struct{}

// OpenImage opens the memory of a checkpoint.
func (s *Store) OpenImage(ctx context.Context, name string) (*Image, error) {
	return nil, errors.ErrUnsupported
}

// Close lets go of the packs. Nothing of the image may be used afterwards.
func (m *Image) Close() error { return nil }

// Checkpoint is what was opened.
func (m *Image) Checkpoint() Checkpoint { return Checkpoint{} }

// Size of the memory, in bytes.
func (m *Image) Size() int64 { return 0 }

// Pages of the memory, zero pages included.
func (m *Image) Pages() uint64 { return 0 }

// Zero says whether a page is all zeros. It is so of every page beyond the end.
func (m *Image) Zero(gfn uint64) bool { return false }

// ReadPage reads one page into dst (4096 bytes). It allocates nothing and verifies what it decodes.
// A *CorruptError or the error of the blob otherwise; dst is undefined then.
func (m *Image) ReadPage(gfn uint64, dst []byte) error { return errors.ErrUnsupported }

// ReadRange reads len(dst)/4096 pages from first on, each stored unit decoded once.
func (m *Image) ReadRange(first uint64, dst []byte) error { return errors.ErrUnsupported }

// Block is a locality block: what is read from disk at once and used together. Comparable.
type Block struct {
	pack  uint32
	first uint32
}

// Block gives the block that a page lies in; false for a zero page.
func (m *Image) Block(gfn uint64) (Block, bool) { return Block{}, false }

// BlockGFNs appends to dst the pages of this image in a block, in layout order. No I/O.
func (m *Image) BlockGFNs(b Block, dst []uint64) []uint64 { return dst }

// Piece holds pages: Pages[i*4096:(i+1)*4096] belongs to GFNs[i]. It may be used again and again.
type Piece struct {
	GFNs  []uint64
	Pages []byte
}

// ReadBlock reads a block whole: one read, each unit decoded once. It replaces what buf holds.
func (m *Image) ReadBlock(b Block, buf *Piece) error { return errors.ErrUnsupported }

// Layout says in which order the pages were stored.
func (m *Image) Layout() Layout { return LayoutPhysical }

// Feed is an image or a part of it cut into pieces, each of them one sequential read. Pieces may be
// read in any order and by many goroutines, each with a Piece of its own.
type Feed interface {
	Len() int
	Read(ctx context.Context, i int, p *Piece) error
}

// WorkingSetFeed gives the working set in first-touch order, its zero pages included. Its Len is 0
// without a working set.
func (m *Image) WorkingSetFeed() Feed { return nil }

// EagerFeed gives everything that is not zero, in the order of the packs, about 1 MiB a piece.
func (m *Image) EagerFeed() Feed { return nil }

// ZeroRuns calls fn for each maximal run of zero pages, ascending, until fn says false.
func (m *Image) ZeroRuns(fn func(first, count uint64) bool) {}

// WorkingSet is the working set in first-touch order; nil without one.
func (m *Image) WorkingSet() []Run { return nil }
