package fs

import (
	"math/bits"
	"sync/atomic"
)

// A bitmap is a set of page numbers that many goroutines change at once without a lock.
//
// It is sparse: a chunk of bits is allocated when the first page of its 128 MiB of guest memory is
// set, so that the five sets of a 1 TiB image cost kilobytes until pages are touched. The zero
// value is not usable; see newBitmap. Page numbers at or past the limit are ignored, never a panic:
// they come from the kernel and from stores.
type bitmap struct {
	pages  uint64
	chunks []atomic.Pointer[chunk]
	count  atomic.Int64
}

const (
	chunkPages = 1 << 15
	chunkWords = chunkPages / 64
)

type chunk [chunkWords]atomic.Uint64

// newBitmap makes an empty set for page numbers below pages.
func newBitmap(pages uint64) *bitmap {
	chunks := (pages + chunkPages - 1) / chunkPages
	return &bitmap{pages: pages, chunks: make([]atomic.Pointer[chunk], chunks)}
}

// word finds the word of a page; nil if the page is out of range, or if its chunk is not there and
// make is false.
func (b *bitmap) word(page uint64, make bool) *atomic.Uint64 {
	if page >= b.pages {
		return nil
	}
	p := &b.chunks[page/chunkPages]
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
	w := b.word(page, false)
	return w != nil && w.Load()&(1<<(page%64)) != 0
}

// add puts the page in and reports whether it is new.
func (b *bitmap) add(page uint64) bool {
	return b.addRange(page, 1) == 1
}

// addRange puts count pages in and returns how many of them are new.
func (b *bitmap) addRange(first, count uint64) (added int) {
	return b.change(first, count, true)
}

// removeRange takes count pages out and returns how many of them were in.
func (b *bitmap) removeRange(first, count uint64) (removed int) {
	return b.change(first, count, false)
}

// change sets or clears a range, one atomic operation a word.
func (b *bitmap) change(first, count uint64, set bool) (changed int) {
	end := min(first+count, b.pages)
	for page := first; page < end; {
		n := min(64-page%64, end-page)
		mask := (^uint64(0) >> (64 - n)) << (page % 64)
		if w := b.word(page, set); w != nil {
			if set {
				changed += bits.OnesCount64(mask &^ w.Or(mask))
			} else {
				changed += bits.OnesCount64(mask & w.And(^mask))
			}
		}
		page += n
	}
	if changed > 0 {
		if set {
			b.count.Add(int64(changed))
		} else {
			b.count.Add(-int64(changed))
		}
	}
	return changed
}

// any reports whether one of count pages is in.
func (b *bitmap) any(first, count uint64) bool {
	end := min(first+count, b.pages)
	for page := first; page < end; {
		n := min(64-page%64, end-page)
		mask := (^uint64(0) >> (64 - n)) << (page % 64)
		if w := b.word(page, false); w != nil && w.Load()&mask != 0 {
			return true
		}
		page += n
	}
	return false
}

// len counts the pages that are in.
func (b *bitmap) len() uint64 {
	return uint64(max(b.count.Load(), 0))
}

// clear takes all out. What others change meanwhile may or may not be in afterwards.
func (b *bitmap) clear() {
	for i := range b.chunks {
		if b.chunks[i].Load() != nil {
			b.removeRange(uint64(i)*chunkPages, chunkPages)
		}
	}
}
