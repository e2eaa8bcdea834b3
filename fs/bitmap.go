package fs

import (
	"math/bits"
	"sync/atomic"
)

// A bitmap is a set of page numbers that many goroutines change at once without a lock.
//
// It is sparse: an empty set has no memory, and a chunk of bits is allocated when the first page of
// its 128 MiB of guest memory is set, so that the sets of a 1 TiB image cost kilobytes until pages
// are touched. The zero value is not usable; see newBitmap. Page numbers at or past the limit are
// ignored, never a panic: they come from the kernel and from stores.
type bitmap struct {
	pages uint64
	table atomic.Pointer[chunkTable] // nil: the set is empty
}

// A chunkTable is what a set holds. A set that is cleared gets a new one: changes that still go on in
// the old one have no effect.
type chunkTable struct {
	count  atomic.Int64
	chunks []atomic.Pointer[chunk]
}

const (
	chunkPages = 1 << 15
	chunkWords = chunkPages / 64
)

type chunk [chunkWords]atomic.Uint64

// newBitmap makes an empty set for page numbers below pages.
func newBitmap(pages uint64) *bitmap { return &bitmap{pages: pages} }

// filled returns the table, and makes it if there is none.
func (b *bitmap) filled() *chunkTable {
	if t := b.table.Load(); t != nil {
		return t
	}
	t := &chunkTable{chunks: make([]atomic.Pointer[chunk], (b.pages+chunkPages-1)/chunkPages)}
	if b.table.CompareAndSwap(nil, t) {
		return t
	}
	return b.filled()
}

// word finds the word of a page that is in range; nil if its chunk is not there and make is false.
func (t *chunkTable) word(page uint64, make bool) *atomic.Uint64 {
	p := &t.chunks[page/chunkPages]
	c := p.Load()
	if c == nil {
		if !make {
			return nil
		}
		if c = new(chunk); !p.CompareAndSwap(nil, c) {
			c = p.Load()
		}
	}
	return &c[page%chunkPages/64]
}

func (b *bitmap) has(page uint64) bool {
	t := b.table.Load()
	if t == nil || page >= b.pages {
		return false
	}
	w := t.word(page, false)
	return w != nil && w.Load()&(1<<(page%64)) != 0
}

// addRange puts count pages in and returns how many of them are new.
func (b *bitmap) addRange(first, count uint64) (added int) {
	if first >= b.pages {
		return 0
	}
	return b.change(b.filled(), first, count, true)
}

// removeRange takes count pages out and returns how many of them were in.
func (b *bitmap) removeRange(first, count uint64) (removed int) {
	t := b.table.Load()
	if t == nil {
		return 0
	}
	return b.change(t, first, count, false)
}

// change sets or clears a range, one atomic operation a word.
func (b *bitmap) change(t *chunkTable, first, count uint64, set bool) (changed int) {
	end := min(first+count, b.pages)
	for page := first; page < end; {
		n := min(64-page%64, end-page)
		mask := (^uint64(0) >> (64 - n)) << (page % 64)
		if w := t.word(page, set); w != nil {
			if set {
				changed += bits.OnesCount64(mask &^ w.Or(mask))
			} else {
				changed += bits.OnesCount64(mask & w.And(^mask))
			}
		}
		page += n
	}
	if set {
		t.count.Add(int64(changed))
	} else {
		t.count.Add(-int64(changed))
	}
	return changed
}

// any reports whether one of count pages is in.
func (b *bitmap) any(first, count uint64) bool {
	t := b.table.Load()
	end := min(first+count, b.pages)
	if t == nil {
		return false
	}
	for page := first; page < end; {
		n := min(64-page%64, end-page)
		mask := (^uint64(0) >> (64 - n)) << (page % 64)
		if w := t.word(page, false); w != nil && w.Load()&mask != 0 {
			return true
		}
		page += n
	}
	return false
}

// next is the first page from page on that is in, or is not; the limit if there is none.
func (b *bitmap) next(page uint64, in bool) uint64 {
	t := b.table.Load()
	for page < b.pages {
		var word uint64
		step := uint64(64)
		if t == nil {
			step = b.pages
		} else if c := t.chunks[page/chunkPages].Load(); c == nil {
			step = chunkPages
		} else {
			word = c[page%chunkPages/64].Load()
		}
		if !in {
			word = ^word
		}
		if word >>= page % 64; word != 0 {
			return min(page+uint64(bits.TrailingZeros64(word)), b.pages)
		}
		page = (page/step + 1) * step
	}
	return b.pages
}

// len counts the pages that are in.
func (b *bitmap) len() uint64 {
	t := b.table.Load()
	if t == nil {
		return 0
	}
	return uint64(max(t.count.Load(), 0))
}

// clear removes all pages and frees the memory. Pages that others add meanwhile may be in afterwards or
// not.
func (b *bitmap) clear() { b.table.Store(nil) }
