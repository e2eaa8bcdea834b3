package learn

import (
	"cmp"
	"slices"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A score says how sure it is that a page is used, in 64ths, and when it is touched first.
type score struct {
	value uint8
	at    time.Duration
}

const (
	// seenScore is what a restore adds that has seen a page, maxScore where that ends.
	seenScore = 64
	maxScore  = 128
	// enterScore is what a page needs to come into a set, and what those in it have; firstScore where there
	// is no set; leaveScore what a page of the set needs to stay.
	enterScore = 96
	firstScore = 64
	leaveScore = 64
	// forgetScore is what a page outside of the set needs to be remembered.
	forgetScore = 16
	// maxScored bounds the pages outside of the set that are remembered.
	maxScored = 1 << 16
)

// faded is a score after one more restore.
func faded(value uint8) uint8 { return uint8(uint(value) * 3 / 4) }

// seen is a score after one more restore that has seen the page.
func seen(value uint8) uint8 { return min(faded(value)+seenScore, maxScore) }

// score gives all pages that the restore could see their new score.
func (r *Record) score(x Restore, touched *wss.Bitmap) {
	first := x.Touched.FirstTouches()
	for gfn, p := range r.pages {
		if !touched.Has(gfn) && !x.Brought(gfn) {
			p.value = faded(p.value)
			r.put(gfn, p)
		}
	}
	for _, gfn := range slices.Concat(x.Sample, x.Checks) {
		if _, known := r.pages[gfn]; !known && !touched.Has(gfn) && r.base.has(gfn) {
			r.put(gfn, score{value: faded(enterScore)})
		}
	}
	for from, n := range touched.Runs() {
		for gfn := from; gfn < from+n; gfn++ {
			p, known := r.pages[gfn]
			if !known && r.base.has(gfn) {
				continue
			}
			at, _ := first.Earliest([]uint64{gfn})
			if known && p.value > 0 {
				at = (3*p.at + at) / 4
			}
			r.put(gfn, score{seen(p.value), at.Truncate(time.Microsecond)})
		}
	}
	r.forget()
}

// put gives a page its score, which those do not need that have the one of all others.
func (r *Record) put(gfn uint64, p score) {
	in := r.base.has(gfn)
	if in && p.value >= enterScore || !in && p.value < forgetScore {
		delete(r.pages, gfn)
		return
	}
	r.pages[gfn] = p
}

// forget leaves the surest pages if there are too many: those outside of the set with the highest scores, and
// some of those of the set.
func (r *Record) forget() {
	if len(r.pages) <= maxScored {
		return
	}
	outside, inside := r.outside(0), r.doubtful(maxScore)
	for _, p := range outside[min(len(outside), maxScored):] {
		delete(r.pages, p.GFN)
	}
	for _, gfn := range inside[min(len(inside), maxScored):] {
		delete(r.pages, gfn)
	}
}

// outside are the pages outside of the set that have at least a score, the highest first, and of those with
// the same one the earliest touched first.
func (r *Record) outside(least uint8) []Page {
	var all []Page
	for gfn, p := range r.pages {
		if p.value >= least && !r.base.has(gfn) {
			all = append(all, Page{gfn, p.at})
		}
	}
	slices.SortFunc(all, func(a, b Page) int {
		return cmp.Or(-cmp.Compare(r.pages[a.GFN].value, r.pages[b.GFN].value),
			cmp.Compare(a.At, b.At), cmp.Compare(a.GFN, b.GFN))
	})
	return all
}

// doubtful are the pages of the set with a score below one, ascending.
func (r *Record) doubtful(below uint8) []uint64 {
	var all []uint64
	for gfn, p := range r.pages {
		if p.value < below && r.base.has(gfn) {
			all = append(all, gfn)
		}
	}
	slices.Sort(all)
	return all
}
