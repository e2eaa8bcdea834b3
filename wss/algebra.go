package wss

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// The functions of this file make one set out of several sets of one image. The order of a set is the
// order in which its pages are prefetched, and it is kept: first the pages of the first operand, then
// what each later one adds, in its own order. Union(a, b) and Union(b, a) have the same pages in
// different orders, and Union(a, b, c) is Union(Union(a, b), c). A run that is cut keeps its time,
// source and vCPU.

// maxCombined is the largest image whose sets can be combined: 4 TiB, whose pages take 128 MiB as a
// bitmap. The record itself can be of larger ones.
const maxCombined = 1 << 30

// Union is what any of the sets has. Sources stay side by side: a page that two sources name is in the
// result twice; a page that one source names in two sets is in it once, as in the first set.
func Union(sets ...*Set) (*Set, error) {
	u, err := combined("union", sets)
	if err != nil {
		return nil, err
	}
	seen := map[Source]*Bitmap{}
	for _, s := range sets {
		for _, r := range s.Runs {
			b := seen[r.Source]
			if b == nil {
				b = NewBitmap(u.ImagePages)
				seen[r.Source] = b
			}
			u.addNew(r, b)
		}
	}
	return u.fits()
}

// Intersection is the first set without the pages that one of the others lacks, whatever the
// source.
func Intersection(sets ...*Set) (*Set, error) {
	return filtered("intersection", sets, true)
}

// Difference is the first set without the pages that one of the others has, whatever the source.
func Difference(sets ...*Set) (*Set, error) {
	return filtered("difference", sets, false)
}

// filtered keeps of the first set what each of the others has, or what none of them has.
func filtered(op string, sets []*Set, in bool) (*Set, error) {
	f, err := combined(op, sets)
	if err != nil {
		return nil, err
	}
	keep := sets[0].Bitmap()
	for _, s := range sets[1:] {
		if in {
			keep = keep.And(s.Bitmap())
		} else {
			keep = keep.AndNot(s.Bitmap())
		}
	}
	for _, r := range sets[0].Runs {
		f.addIn(r, keep)
	}
	return f.fits()
}

// Rank is what any of the sets has, each page once, those that more sets name first. Pages that
// equally many name have the order of Union. Pages that a machine touched after every restore come
// before those that it touched once: a bound then cuts off the accidents.
func Rank(sets ...*Set) (*Set, error) {
	ranked, err := combined("rank", sets)
	if err != nil {
		return nil, err
	}
	once := &Set{ImagePages: ranked.ImagePages}
	seen := NewBitmap(once.ImagePages)
	atLeast := make([]*Bitmap, len(sets)+1) // [k]: what more than k sets name
	for i := range atLeast {
		atLeast[i] = NewBitmap(once.ImagePages)
	}
	for n, s := range sets {
		named := s.Bitmap()
		for k := n; k > 0; k-- {
			atLeast[k] = atLeast[k].Or(atLeast[k-1].And(named))
		}
		atLeast[0] = atLeast[0].Or(named)
		for _, r := range s.Runs {
			once.addNew(r, seen)
		}
	}
	for k := len(sets) - 1; k >= 0; k-- {
		exactly := atLeast[k].AndNot(atLeast[k+1])
		for _, r := range once.Runs {
			ranked.addIn(r, exactly)
		}
	}
	return ranked.fits()
}

// Bound is the front of the set: so many pages (bytes / PageSize) of it as come first. A page that
// a second source names again costs nothing and stays.
func (s *Set) Bound(bytes int64) *Set {
	bounded := *s
	bounded.Runs = nil
	left := uint64(max(bytes, 0)) / PageSize
	seen := NewBitmap(s.ImagePages)
	for _, r := range s.Runs {
		for part, known := range seen.parts(r.GFN, r.End()) {
			if !known {
				part.count = min(part.count, left)
				left -= part.count
				seen.SetRange(part.first, part.count)
			}
			bounded.add(r, part)
		}
	}
	return &bounded
}

// Only is the set without the runs of other sources.
func (s *Set) Only(sources ...Source) *Set {
	only := *s
	only.Runs = nil
	for _, r := range s.Runs {
		if slices.Contains(sources, r.Source) {
			only.Runs = append(only.Runs, r)
		}
	}
	return &only
}

// combined is the empty result of an operation, with the header that it has.
func combined(op string, sets []*Set) (*Set, error) {
	if len(sets) == 0 {
		return nil, badSet("%s of no sets", op)
	}
	c := &Set{ImagePages: sets[0].ImagePages}
	if c.ImagePages > maxCombined {
		return nil, badSet("%s of sets of %d pages, at most %d can be", op, c.ImagePages, maxCombined)
	}
	ways := make([]string, 0, len(sets))
	for _, s := range sets {
		if s.ImagePages != c.ImagePages {
			return nil, badSet("%s of sets of different images, of %d and %d pages", op,
				c.ImagePages, s.ImagePages)
		}
		c.Window = max(c.Window, s.Window)
		if s.Created.After(c.Created) {
			c.Created = s.Created
		}
		ways = append(ways, s.Way)
	}
	c.Way = cutWay(fmt.Sprintf("%s of %d: %s", op, len(sets), strings.Join(ways, " | ")))
	return c, nil
}

// maxWay keeps the way of a combination of combinations readable.
const maxWay = 400

func cutWay(way string) string {
	if len(way) <= maxWay {
		return way
	}
	return strings.ToValidUTF8(way[:maxWay], "") + " …"
}

// fits is the result, if the record can hold it.
func (s *Set) fits() (*Set, error) {
	if len(s.Runs) > MaxRuns {
		return nil, badSet("the result has %d runs, at most %d can be", len(s.Runs), MaxRuns)
	}
	return s, nil
}

// span is count pages from first on.
type span struct{ first, count uint64 }

// addNew appends what of r is not in seen, and puts it there.
func (s *Set) addNew(r Run, seen *Bitmap) {
	for part, known := range seen.parts(r.GFN, r.End()) {
		if !known {
			s.add(r, part)
		}
	}
	seen.SetRange(r.GFN, r.Count)
}

// addIn appends what of r is in keep.
func (s *Set) addIn(r Run, keep *Bitmap) {
	for part, in := range keep.parts(r.GFN, r.End()) {
		if in {
			s.add(r, part)
		}
	}
}

// add appends a part of r, to the last run where that goes on in it.
func (s *Set) add(r Run, part span) {
	if part.count == 0 {
		return
	}
	r.GFN, r.Count = part.first, part.count
	if n := len(s.Runs); n > 0 {
		last := &s.Runs[n-1]
		if last.End() == r.GFN && last.At == r.At && last.Source == r.Source &&
			last.VCPU == r.VCPU {
			last.Count += r.Count
			return
		}
	}
	s.Runs = append(s.Runs, r)
}

// parts cuts [first, end) into maximal stretches that are in the bitmap or not, ascending. What the
// caller sets in a stretch that it was given does not change those to come.
func (b *Bitmap) parts(first, end uint64) iter.Seq2[span, bool] {
	return func(yield func(span, bool) bool) {
		for first < end {
			in := b.Has(first)
			flip := uint64(0)
			if in {
				flip = ^uint64(0)
			}
			next := min(b.next(first, flip), end)
			if !yield(span{first, next - first}, in) {
				return
			}
			first = next
		}
	}
}
