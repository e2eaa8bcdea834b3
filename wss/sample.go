package wss

import "math/rand/v2"

// Drop is the set without a random percentage of its pages, to the nearest page, in all of its
// sources; the same seed drops the same pages. It asks what a miss costs: in VEE'11, figure 8,
// losing 5 % of a working set already makes TTR on a disk that of a lazy restore.
func (s *Set) Drop(percent float64, seed uint64) *Set {
	rng := rand.New(rand.NewPCG(seed, 0))
	all := s.Bitmap()
	left := all.Count()
	drop := uint64(min(max(percent, 0), 100)/100*float64(left) + 0.5)
	lost := NewBitmap(s.ImagePages)
	// Each page goes with the chance that makes exactly so many go (Knuth, algorithm 3.4.2 S).
	for first, count := range all.Runs() {
		for gfn := first; gfn < first+count; gfn++ {
			if rng.Uint64N(left) < drop {
				lost.Set(gfn)
				drop--
			}
			left--
		}
	}
	kept := *s
	kept.Runs = nil
	for _, r := range s.Runs {
		for part, gone := range lost.parts(r.GFN, r.End()) {
			if !gone {
				kept.add(r, part)
			}
		}
	}
	return &kept
}
