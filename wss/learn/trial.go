package learn

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// TrialRestores is how many restores with each of two sets are compared.
const TrialRestores = 3

// A Trial is a candidate, and how it does beside the set that there is.
type Trial struct {
	// Serial is the number of the candidate, Made when it was made, Pages its size.
	Serial uint64    `json:"serial"`
	Made   time.Time `json:"made"`
	Pages  uint64    `json:"pages"`
	Old    Side      `json:"old"`
	New    Side      `json:"new"`
	// Proved: it is to take the place of the set.
	Proved bool `json:"proved,omitempty"`
}

// A Side is what the restores with one set have shown: Begun is all of them, Restores those that count, and
// Bad the late and missed pages of these.
type Side struct {
	Begun    int    `json:"begun"`
	Restores int    `json:"restores"`
	Bad      uint64 `json:"bad"`
}

const (
	// A change of fewer pages, or of a smaller part of the set, is none.
	minChange   = 4
	changeShare = 128
	// tolerance is what a candidate that is not larger may be worse: one part in so many.
	tolerance = 16
	// firstWait is how many restores pass after a candidate was dropped, the first time and at most.
	firstWait = 4
	maxWait   = 64
)

// A Plan is what the next restore is to bring: the set of the checkpoint, or the candidate.
type Plan struct {
	Candidate uint64 // its number; 0: the set as it is
	Add       []Page
	Drop      []uint64
}

// Begin decides what the next restore brings: in a trial they take turns.
func (r *Record) Begin() Plan {
	t := r.Trial
	if t == nil {
		return Plan{}
	}
	if !t.Proved && t.New.Begun >= t.Old.Begun {
		t.Old.Begun++
		return Plan{}
	}
	t.New.Begun++
	return Plan{Candidate: t.Serial, Add: r.add, Drop: r.drop}
}

// decide counts a restore for its side of the trial, and ends the trial or begins one.
func (r *Record) decide(candidate, bad uint64, now time.Time) (decision string) {
	t := r.Trial
	switch {
	case t == nil && r.Wait > 0:
		r.Wait--
		return ""
	case t == nil:
		return r.propose(now)
	case t.Proved:
		return ""
	case candidate == 0:
		t.Old.add(bad)
	case candidate == t.Serial:
		t.New.add(bad)
	}
	if t.Old.Restores < TrialRestores || t.New.Restores < TrialRestores {
		return ""
	}
	if !t.better(r.BasePages) {
		r.Trial, r.add, r.drop = nil, nil, nil
		r.Backoff = min(max(2*r.Backoff, firstWait), maxWait)
		r.Wait = r.Backoff
		return fmt.Sprintf("candidate %d dropped: %s, the set %s", t.Serial, t.New, t.Old)
	}
	t.Proved, r.Wait, r.Backoff = true, 0, 0
	return fmt.Sprintf("candidate %d proved: %s, the set %s", t.Serial, t.New, t.Old)
}

// add counts a restore. It may have begun before the trial.
func (s *Side) add(bad uint64) {
	s.Restores, s.Bad = s.Restores+1, s.Bad+bad
	s.Begun = max(s.Begun, s.Restores)
}

func (s Side) String() string {
	return fmt.Sprintf("%d late or missed in %d restores", s.Bad, s.Restores)
}

// better says whether a candidate may take the place of a set of so many pages. Their restores may be of
// different numbers, so means are compared.
func (t *Trial) better(pages uint64) bool {
	old := float64(t.Old.Bad) / float64(t.Old.Restores)
	now := float64(t.New.Bad) / float64(t.New.Restores)
	if t.Pages <= pages {
		return now <= old+old/tolerance+1
	}
	return now < old
}

// propose makes a candidate if there is enough to change.
func (r *Record) propose(now time.Time) string {
	enter := uint8(enterScore)
	if r.base.count == 0 {
		enter = firstScore
	}
	drop := r.doubtful(leaveScore)
	stay := r.base.count - uint64(len(drop))
	if stay > r.Bound() {
		return "" // what it would leave out is not known yet
	}
	add := r.outside(enter)
	add = add[:min(uint64(len(add)), r.Bound()-stay, maxScored)]
	drop = drop[:min(len(drop), maxScored)]
	pages := r.base.count - uint64(len(drop)) + uint64(len(add))
	change := uint64(len(add) + len(drop))
	if change < max(minChange, r.base.count/changeShare) || pages > r.Bound() {
		return ""
	}
	slices.SortFunc(add, func(a, b Page) int { return cmp.Compare(a.GFN, b.GFN) })
	r.Serial++
	r.Trial = &Trial{Serial: r.Serial, Made: now.UTC().Truncate(time.Second), Pages: pages}
	r.add, r.drop = add, drop
	return fmt.Sprintf("candidate %d made: %d pages more, %d fewer", r.Serial, len(add), len(drop))
}

// Proved says whether the candidate is to take the place of the set.
func (r *Record) Proved() bool { return r.Trial != nil && r.Trial.Proved }

// settle makes the candidate, which the checkpoint has by now, the set.
func (r *Record) settle() {
	for i := len(r.History) - 1; i >= 0; i-- {
		if r.History[i].Counted {
			r.History[i].Decision = cmp.Or(r.History[i].Decision, "the candidate is the set now")
			break
		}
	}
	r.Trial, r.add, r.drop = nil, nil, nil
	for gfn, p := range r.pages {
		r.put(gfn, p) // those that are in the set now have the score of all others
	}
}
