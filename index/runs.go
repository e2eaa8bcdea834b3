package index

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errRuns = errors.New("list of runs is malformed")

// appendRuns codes runs in their order: gap from the end of the last run (zigzag), count - 1.
func appendRuns(b []byte, runs []Run) []byte {
	b = binary.AppendUvarint(b, uint64(len(runs)))
	end := uint64(0)
	for _, r := range runs {
		b = binary.AppendUvarint(b, zigzag(int64(r.GFN-end)))
		b = binary.AppendUvarint(b, r.Count-1)
		end = r.GFN + r.Count
	}
	return b
}

func parseRuns(b []byte) ([]Run, error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)) {
		return nil, errRuns
	}
	b = b[w:]
	runs := make([]Run, 0, n)
	end := uint64(0)
	for range n {
		gap, w := binary.Uvarint(b)
		if w <= 0 {
			return nil, errRuns
		}
		count, v := binary.Uvarint(b[w:])
		if v <= 0 {
			return nil, errRuns
		}
		b = b[w+v:]
		r := Run{GFN: end + uint64(unzigzag(gap)), Count: count + 1}
		if r.GFN >= maxPages || r.Count == 0 || r.Count > maxPages-r.GFN {
			return nil, fmt.Errorf("%w: %d pages from %d on", errRuns, r.Count, r.GFN)
		}
		end = r.GFN + r.Count
		runs = append(runs, r)
	}
	if len(b) != 0 {
		return nil, errRuns
	}
	return runs, nil
}

// cleanRuns removes from runs the pages that an earlier run has already, so that every page is there
// once, at its first touch, and joins runs that follow one another. A run outside of the image is an
// error.
func cleanRuns(runs []Run, pages uint64) ([]Run, error) {
	out, err := newPages(runs, pages, new(gfnSet))
	if err != nil {
		return nil, fmt.Errorf("working set: %w", err)
	}
	return out, nil
}

// newPages returns the pages of runs that are not in seen, in their order, and adds them to it.
func newPages(runs []Run, pages uint64, seen *gfnSet) (out []Run, err error) {
	for _, r := range runs {
		if r.Count == 0 || r.GFN >= pages || r.Count > pages-r.GFN {
			return nil, fmt.Errorf("run of %d pages from %d on, the image has %d pages",
				r.Count, r.GFN, pages)
		}
		for gfn := r.GFN; gfn < r.GFN+r.Count; gfn++ {
			if !seen.add(gfn) {
				continue
			}
			if last := len(out) - 1; last >= 0 && out[last].GFN+out[last].Count == gfn {
				out[last].Count++
			} else {
				out = append(out, Run{GFN: gfn, Count: 1})
			}
		}
	}
	return out, nil
}

func countPages(runs []Run) (n uint64) {
	for _, r := range runs {
		n += r.Count
	}
	return n
}

// eachPage calls fn for every page of runs in order.
func eachPage(runs []Run, fn func(gfn uint64)) {
	for _, r := range runs {
		for gfn := r.GFN; gfn < r.GFN+r.Count; gfn++ {
			fn(gfn)
		}
	}
}

// gfnSet is a set of guest frame numbers: a bitmap by leaf, so that it costs what it holds.
type gfnSet struct {
	m map[uint64]*[8]uint64
}

// add puts gfn in and says whether it was not there.
func (s *gfnSet) add(gfn uint64) bool {
	if s.m == nil {
		s.m = map[uint64]*[8]uint64{}
	}
	l := s.m[gfn/LeafPages]
	if l == nil {
		l = new([8]uint64)
		s.m[gfn/LeafPages] = l
	}
	word, bit := &l[gfn/64%8], uint64(1)<<(gfn%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (s *gfnSet) has(gfn uint64) bool {
	l := s.m[gfn/LeafPages]
	return l != nil && l[gfn/64%8]>>(gfn%64)&1 != 0
}

// remove takes gfn out and says whether it was there.
func (s *gfnSet) remove(gfn uint64) bool {
	if !s.has(gfn) {
		return false
	}
	s.m[gfn/LeafPages][gfn/64%8] &^= 1 << (gfn % 64)
	return true
}
