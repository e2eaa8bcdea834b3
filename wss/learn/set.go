package learn

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thawfs/thaw/wss"
)

// MarkField is the header line of a working set that says which candidate it was made of.
const MarkField = "learned"

// Mark names the candidate among all sets of the checkpoint; "" if there is none.
func (r *Record) Mark() string {
	if r.Trial == nil {
		return ""
	}
	return fmt.Sprintf("%d %s", r.Trial.Serial, r.Trial.Made.Format(time.RFC3339))
}

// MarkOf is the mark of a set; "" if it has none.
func MarkOf(s *wss.Set) string {
	for _, f := range s.Extra {
		if f.Key == MarkField {
			return f.Value
		}
	}
	return ""
}

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
		for _, f := range old.Extra {
			if f.Key != MarkField {
				s.Extra = append(s.Extra, f)
			}
		}
		timed, others = split(old)
	}
	s.Extra = append(s.Extra, wss.Field{Key: MarkField, Value: r.Mark()})
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
