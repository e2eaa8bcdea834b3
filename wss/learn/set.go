package learn

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/thawfs/thaw/wss"
)

// Set is the candidate as a working set, made of the one that the checkpoint has; nil: it has none. What has
// times is in the order of these. Where the old set has none, the new pages are in front.
func (r *Record) Set(old *wss.Set) (*wss.Set, error) {
	if r.Trial == nil {
		return nil, errors.New("there is no candidate")
	}
	s := &wss.Set{ImagePages: r.ImagePages, Created: r.Trial.Made, Way: r.way(old)}
	var timed, others []wss.Run
	if old != nil {
		if old.ImagePages != r.ImagePages {
			return nil, fmt.Errorf("%w: it is of an image of %d pages, this one has %d", wss.ErrBadSet,
				old.ImagePages, r.ImagePages)
		}
		s.Window = old.Window
		s.Extra = slices.Clone(old.Extra)
		timed, others = split(old)
	}
	source := wss.SourceLearned
	if len(timed) == 0 && len(others) > 0 {
		source = wss.SourceMissed
	}
	for _, p := range r.add {
		timed = append(timed, wss.Run{GFN: p.GFN, Count: 1, At: p.At, VCPU: wss.NoVCPU})
		s.Window = max(s.Window, p.At)
	}
	slices.SortStableFunc(timed, func(a, b wss.Run) int { return int(min(max(a.At-b.At, -1), 1)) })
	for i := range timed {
		timed[i].Source = source
	}
	gone := wss.NewBitmap(r.ImagePages)
	for _, gfn := range r.drop {
		gone.Set(gfn)
	}
	for _, run := range slices.Concat(timed, others) {
		s.Runs = appendNew(s.Runs, run, gone)
	}
	s = s.Bound(int64(r.Bound()) * wss.PageSize)
	return s, s.Validate(r.ImagePages)
}

// split returns the runs with times and the others.
func split(s *wss.Set) (timed, others []wss.Run) {
	for _, run := range s.Runs {
		switch run.Source {
		case wss.SourceTrace, wss.SourceRead, wss.SourceLearned:
			timed = append(timed, run)
		default:
			others = append(others, run)
		}
	}
	return timed, others
}

// appendNew appends the pages of a run that are not in seen, and puts them there.
func appendNew(runs []wss.Run, run wss.Run, seen *wss.Bitmap) []wss.Run {
	for gfn := run.GFN; gfn < run.End(); gfn++ {
		if !seen.Set(gfn) {
			continue
		}
		if n := len(runs) - 1; n >= 0 {
			last := &runs[n]
			if last.End() == gfn && last.At == run.At && last.Source == run.Source && last.VCPU == run.VCPU {
				last.Count++
				continue
			}
		}
		one := run
		one.GFN, one.Count = gfn, 1
		runs = append(runs, one)
	}
	return runs
}

const wayOf = "learned from restores"

// way says in words where the set comes from: what was learned, and the set of the beginning.
func (r *Record) way(old *wss.Set) string {
	if old == nil || old.Way == "" || strings.HasPrefix(old.Way, wayOf) {
		if old != nil && old.Way != "" {
			return old.Way
		}
		return wayOf
	}
	return strings.ToValidUTF8(fmt.Sprintf("%s, %.400s", wayOf, old.Way), "")
}
