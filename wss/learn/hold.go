package learn

import (
	"math/rand/v2"
	"slices"
)

const (
	// sampleShare is one page of so many, minSample at least, and one of sampleMost at most.
	sampleShare = 100
	minSample   = 8
	sampleMost  = 16
	// checkShare bounds the checks, near a doubtful page nearby of them at most, within so many pages.
	checkShare = 25
	nearby     = 4
	within     = 32
)

// Hold chooses pages of a set that a restore leaves out, so that it is seen whether they are used: a random
// sample, and others that are checked because something is known against them. pages are the set that the
// restore brings, ascending.
func (r *Record) Hold(pages []Span, random *rand.Rand) (sample, checks []uint64) {
	set := newSpans(pages)
	held := map[uint64]bool{}
	take := func(to *[]uint64, gfn uint64) {
		if !held[gfn] && set.has(gfn) {
			held[gfn] = true
			*to = append(*to, gfn)
		}
	}
	want := min(max(set.count/sampleShare, minSample), set.count/sampleMost)
	for uint64(len(sample)) < want {
		take(&sample, set.page(random.Uint64N(set.count)))
	}
	most := int(set.count / checkShare)
	doubts := r.doubtful(enterScore)
	random.Shuffle(len(doubts), func(i, j int) { doubts[i], doubts[j] = doubts[j], doubts[i] })
	for _, gfn := range doubts {
		if len(checks) < most {
			take(&checks, gfn)
		}
	}
	for _, gfn := range doubts {
		for range nearby {
			if len(checks) < most {
				take(&checks, gfn-within+random.Uint64N(2*within+1))
			}
		}
	}
	slices.Sort(sample)
	slices.Sort(checks)
	return sample, checks
}
