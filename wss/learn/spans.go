package learn

import "sort"

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
