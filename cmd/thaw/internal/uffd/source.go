package uffd

import (
	"context"

	"github.com/thawfs/thaw/index"
)

// A Source is an image whose pages a pager installs. Its methods may be called by many goroutines at once.
type Source interface {
	// Pages of the image, of 4 KiB.
	Pages() uint64
	// Zero says whether a page is known to be zeros; false also where only reading it tells.
	Zero(gfn uint64) bool
	// Read reads len(dst)/4096 pages from first on: all of them, or there is an error.
	Read(first uint64, dst []byte) error
	// Page reads one page, into the buffer; what it gives is valid until the next call with that buffer. It
	// allocates nothing once the buffer was used.
	Page(gfn uint64, b *Buffer) ([]byte, error)
	// Beside names the pages that are stored beside the one that was read into the buffer last, and that one,
	// where reading them costs little. Near reads them, and leaves out those that cannot be read.
	Beside(b *Buffer) []uint64
	Near(b *Buffer) *index.Piece
	// Set is the working set in the order in which it is wanted, and SetRuns names its pages.
	Set() Pieces
	SetRuns() []index.Run
	// All is every page that is not known to be zeros, in the order in which they are read fastest.
	All() Pieces
	Close() error
}

// Pieces are a part of an image, in pieces that are read at once. Read may leave pages out with an
// *index.PagesError, which names them.
type Pieces interface {
	Len() int
	Read(ctx context.Context, i int, p *index.Piece) error
}

// A Buffer is what one goroutine reads pages with.
type Buffer struct {
	page    [index.PageSize]byte
	gfn     uint64 // that was read last
	cold    bool   // it lies in cluster
	cluster index.Cluster
	piece   index.Piece
	beside  []uint64
}
