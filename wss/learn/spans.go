package learn

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"sort"

	"github.com/thawfs/thaw/wss"
)

// A Span is Count pages from First on. Where a set is given as spans they ascend and do not touch.
type Span struct{ First, Count uint64 }

// SetID names a set by its pages.
func SetID(pages []Span) string {
	h := sha256.New()
	var b []byte
	for _, s := range pages {
		b = binary.AppendUvarint(binary.AppendUvarint(b[:0], s.First), s.Count)
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// PagesOf are the pages of a set; none if it is nil.
func PagesOf(s *wss.Set) []Span {
	if s == nil {
		return nil
	}
	return spansIn(s.Bitmap())
}

func spansIn(b *wss.Bitmap) (all []Span) {
	for first, n := range b.Runs() {
		all = append(all, Span{first, n})
	}
	return all
}

// spans are pages as ascending runs that do not touch, and how many pages are in each and before it.
type spans struct {
	runs  []Span
	ends  []uint64
	count uint64
}

func newSpans(runs []Span) spans {
	s := spans{runs: runs, ends: make([]uint64, len(runs))}
	for i, r := range runs {
		s.count += r.Count
		s.ends[i] = s.count
	}
	return s
}

func (s spans) has(gfn uint64) bool {
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].First+s.runs[i].Count > gfn })
	return i < len(s.runs) && s.runs[i].First <= gfn
}

// page is the i-th page, in ascending order.
func (s spans) page(i uint64) uint64 {
	n := sort.Search(len(s.ends), func(n int) bool { return s.ends[n] > i })
	r := s.runs[n]
	return r.First + r.Count - (s.ends[n] - i)
}
