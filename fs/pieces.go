package fs

import "sync"

// pieces are buffers of restores, used again.
type pieces struct{ pool sync.Pool }

func (p *pieces) get() *Piece {
	if x, ok := p.pool.Get().(*Piece); ok {
		return x
	}
	return new(Piece)
}

func (p *pieces) put(x *Piece) { p.pool.Put(x) }

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
