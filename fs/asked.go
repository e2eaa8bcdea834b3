package fs

import (
	"math/bits"
	"sync/atomic"
)

// Asked keeps which pages machines have asked for beyond the life of a server, by the ID of the checkpoint.
// They are hints, by which the store may keep these pages where they are read quickly. Methods are called
// from many goroutines.
type Asked interface {
	// SaveAsked adds pages, in ascending runs.
	SaveAsked(id string, runs []PageRun) error
}

// PageRun is a run of guest pages.
type PageRun struct{ First, Count uint64 }

// asked are the pages of an image that were read as a machine reads: a few at a time, because it waits for
// one of them.
type asked struct {
	pages *bitmap
	most  uint64      // more than that, and somebody reads all of it: that says nothing
	over  atomic.Bool // it was more
	saved uint64      // pages that there were when they were saved last; guarded by entry.mu
}

// maxAsked bounds what is kept of one image, in pages.
const maxAsked = 1 << 16

func newAsked(pages uint64) *asked {
	return &asked{pages: newBitmap(pages), most: min(max(pages/4, 256), maxAsked)}
}

// read notes a READ.
func (a *asked) read(first, count uint64) {
	if count >= bigRead || a.over.Load() {
		return
	}
	a.pages.addRange(first, count)
	if a.pages.len() > a.most {
		a.over.Store(true)
		a.pages.clear()
	}
}

// news returns the pages if there are others than at the last time; nil if not. entry.mu is held.
func (a *asked) news() []PageRun {
	n := a.pages.len()
	if a.over.Load() || n == a.saved {
		return nil
	}
	a.saved = n
	return a.pages.runs()
}

// saveAsked keeps what machines have asked for, when the last of them has closed the image.
func (s *Server) saveAsked(e *entry) {
	if s.opts.Asked == nil {
		return
	}
	e.mu.Lock()
	var runs []PageRun
	if !e.gone {
		runs = e.asked.news()
	}
	e.mu.Unlock()
	if len(runs) == 0 {
		return
	}
	s.goes("saving what was asked for", func() {
		if err := s.opts.Asked.SaveAsked(e.id, runs); err != nil {
			s.log.Debug("what machines asked for is not kept", "checkpoint", e.name, "err", err)
		}
	})
}

// runs returns the pages that are in, as ascending runs.
func (b *bitmap) runs() (runs []PageRun) {
	t := b.table.Load()
	if t == nil {
		return nil
	}
	for i := range t.chunks {
		c := t.chunks[i].Load()
		if c == nil {
			continue
		}
		for j := range c {
			for word := c[j].Load(); word != 0; {
				from := bits.TrailingZeros64(word)
				n := bits.TrailingZeros64(^(word >> from))
				page := uint64(i)*chunkPages + uint64(j)*64 + uint64(from)
				if last := len(runs) - 1; last >= 0 && runs[last].First+runs[last].Count == page {
					runs[last].Count += uint64(n)
				} else {
					runs = append(runs, PageRun{page, uint64(n)})
				}
				word &^= (^uint64(0) >> (64 - n)) << from
			}
		}
	}
	return runs
}
