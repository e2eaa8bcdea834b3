package fs

import "sync"

// pieces are buffers of restores, used again.
type pieces struct {
	pool sync.Pool
	free chan struct{} // has an element for each that is in use
}

// maxPieces is how many there are at a time: 64 MiB, and some more where they are decoded. A restore uses
// a few; when many restores want more together, they take turns.
const maxPieces = 64

// get waits for a buffer. A goroutine that has one gives it back soon, and takes no second one.
func (p *pieces) get() *Piece {
	p.free <- struct{}{}
	if x, ok := p.pool.Get().(*Piece); ok {
		return x
	}
	return new(Piece)
}

func (p *pieces) put(x *Piece) {
	p.pool.Put(x)
	<-p.free
}

// zeros are the bytes of zero pages, never written to.
type zeros struct{ data [maxPush * PageSize]byte }

// bytes are those of n zero pages, maxPush at most.
func (z *zeros) bytes(n int) []byte { return z.data[:n*PageSize] }

// piece is a run of zero pages.
func (z *zeros) piece(first, n uint64) *Piece {
	gfns := make([]uint64, n)
	for i := range gfns {
		gfns[i] = first + uint64(i)
	}
	return &Piece{GFNs: gfns, Pages: z.bytes(int(n))}
}
