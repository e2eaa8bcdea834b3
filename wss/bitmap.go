package wss

import (
	"fmt"
	"iter"
	"math/bits"
)

// leafBits is the number of gfns in one leaf of a Bitmap: 128 MiB of guest memory in 4 KiB.
const leafBits = 1 << 15

type leaf [leafBits / 64]uint64

// Bitmap is a set of gfns below a fixed limit. It is sparse: a bitmap of a 1 TiB machine costs
// 64 KiB and 4 KiB more for each 128 MiB of guest memory in which a bit is set. Not safe for
// concurrent use. A gfn at or beyond the limit panics, as an index of a slice does.
type Bitmap struct {
	pages  uint64
	leaves []*leaf
}

// NewBitmap returns an empty bitmap for gfns 0..pages-1.
func NewBitmap(pages uint64) *Bitmap {
	return &Bitmap{pages: pages, leaves: make([]*leaf, (pages+leafBits-1)/leafBits)}
}

// Len is the number of gfns that the bitmap is for (not how many are in it: Count).
func (b *Bitmap) Len() uint64 { return b.pages }

// Set puts a gfn in and says whether it was not there before.
func (b *Bitmap) Set(gfn uint64) bool {
	b.bound(gfn)
	l := b.leaf(gfn)
	word, bit := &l[gfn%leafBits/64], uint64(1)<<(gfn%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// SetRange puts in count gfns from first on.
func (b *Bitmap) SetRange(first, count uint64) {
	if count == 0 {
		return
	}
	b.bound(first)
	if count > b.pages-first {
		b.bound(b.pages)
	}
	for gfn, end := first, first+count; gfn < end; {
		l := b.leaf(gfn)
		n := min(end-gfn, 64-gfn%64)
		l[gfn%leafBits/64] |= (^uint64(0) >> (64 - n)) << (gfn % 64)
		gfn += n
	}
}

// Has says whether a gfn is in the bitmap.
func (b *Bitmap) Has(gfn uint64) bool {
	b.bound(gfn)
	l := b.leaves[gfn/leafBits]
	return l != nil && l[gfn%leafBits/64]&(1<<(gfn%64)) != 0
}

// Count is the number of gfns in the bitmap.
func (b *Bitmap) Count() uint64 {
	var n int
	for _, l := range b.leaves {
		if l == nil {
			continue
		}
		for _, w := range l {
			n += bits.OnesCount64(w)
		}
	}
	return uint64(n)
}

// And returns the gfns that are in both. The two must be of one size.
func (b *Bitmap) And(o *Bitmap) *Bitmap {
	return b.combine(o, func(x, y uint64) uint64 { return x & y })
}

// AndNot returns the gfns of b that are not in o. The two must be of one size.
func (b *Bitmap) AndNot(o *Bitmap) *Bitmap {
	return b.combine(o, func(x, y uint64) uint64 { return x &^ y })
}

// Or returns the gfns that are in either. The two must be of one size.
func (b *Bitmap) Or(o *Bitmap) *Bitmap {
	return b.combine(o, func(x, y uint64) uint64 { return x | y })
}

// Equal says whether both are of one size and hold the same gfns.
func (b *Bitmap) Equal(o *Bitmap) bool {
	return b.pages == o.pages && b.AndNot(o).Count() == 0 && o.AndNot(b).Count() == 0
}

// Runs goes through the bitmap as (first gfn, count) of maximal runs, ascending.
func (b *Bitmap) Runs() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		for first := b.next(0, 0); first < b.pages; {
			end := b.next(first, ^uint64(0))
			if !yield(first, end-first) {
				return
			}
			first = b.next(end, 0)
		}
	}
}

// next is the first gfn from gfn on whose bit is set (flip 0) or clear (flip all ones); b.pages if
// there is none.
func (b *Bitmap) next(gfn, flip uint64) uint64 {
	for gfn < b.pages {
		l := b.leaves[gfn/leafBits]
		if l == nil {
			if flip != 0 {
				return gfn
			}
			gfn = (gfn/leafBits + 1) * leafBits
			continue
		}
		if w := (l[gfn%leafBits/64] ^ flip) >> (gfn % 64); w != 0 {
			return min(gfn+uint64(bits.TrailingZeros64(w)), b.pages)
		}
		gfn = (gfn/64 + 1) * 64
	}
	return b.pages
}

func (b *Bitmap) combine(o *Bitmap, op func(x, y uint64) uint64) *Bitmap {
	if b.pages != o.pages {
		panic(fmt.Sprintf("wss: bitmaps of %d and %d pages", b.pages, o.pages))
	}
	var none leaf
	r := NewBitmap(b.pages)
	for i := range b.leaves {
		x, y := b.leaves[i], o.leaves[i]
		if x == nil && y == nil {
			continue
		}
		if x == nil {
			x = &none
		}
		if y == nil {
			y = &none
		}
		l := new(leaf)
		for j := range l {
			l[j] = op(x[j], y[j])
		}
		r.leaves[i] = l
	}
	return r
}

func (b *Bitmap) leaf(gfn uint64) *leaf {
	l := b.leaves[gfn/leafBits]
	if l == nil {
		l = new(leaf)
		b.leaves[gfn/leafBits] = l
	}
	return l
}

func (b *Bitmap) bound(gfn uint64) {
	if gfn >= b.pages {
		panic(fmt.Sprintf("wss: gfn %d in a bitmap of %d pages", gfn, b.pages))
	}
}
