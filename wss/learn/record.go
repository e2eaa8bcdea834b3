package learn

import (
	"slices"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A Page is a page and when a restored machine touches it first, counted from its first instruction.
type Page struct {
	GFN uint64
	At  time.Duration
}

// A Record is what the restores of one checkpoint have taught. It is not safe for concurrent use.
type Record struct {
	header
	// add and drop are what the candidate has other than the set, ascending by gfn.
	add  []Page
	drop []uint64
	// pages have a score that is not the one of all others.
	pages map[uint64]score
	base  spans
}

// header is what a record keeps besides pages.
type header struct {
	ImagePages uint64 `json:"image_pages"`
	Base       string `json:"base"`
	BasePages  uint64 `json:"base_pages"`
	// Estimated is the size of the set that there was before anything was learned.
	Estimated uint64 `json:"estimated"`
	// Restores counts those that were watched, Serial the candidates.
	Restores uint64 `json:"restores"`
	Serial   uint64 `json:"serial"`
	// Wait is how many restores pass before the next candidate, Backoff how many did the last time.
	Wait    int     `json:"wait,omitempty"`
	Backoff int     `json:"backoff,omitempty"`
	Trial   *Trial  `json:"trial,omitempty"`
	History []Entry `json:"history"`
}

// MaxImagePages is the largest image whose set can be learned: 4 TiB.
const MaxImagePages = 1 << 30

// New is the record of a checkpoint of so many pages that has taught nothing.
func New(imagePages uint64) *Record {
	return &Record{header: header{ImagePages: imagePages}, pages: map[uint64]score{}}
}

// Bound is how many pages a learned set has at most.
func (r *Record) Bound() uint64 {
	bound := r.ImagePages / 4
	if r.Estimated > 0 {
		bound = min(bound, 2*r.Estimated)
	}
	return bound
}

// Meet tells the record which set the checkpoint has, none if there are no pages, and returns its name
// (SetID). If it is the candidate that has proved itself, the record goes on with it. If it has other pages
// than before, somebody has set it, and learning begins anew.
func (r *Record) Meet(set []Span, now time.Time) (id string) {
	id = SetID(set)
	r.base = newSpans(set)
	switch {
	case id == r.Base:
		return id
	case r.Proved() && r.madeOf(set):
		r.settle()
	default:
		if r.Base != "" {
			r.note(Entry{At: now, Set: SetOld, Pages: r.base.count, Decision: "begun anew: the set was replaced"})
		}
		r.Estimated, r.Trial, r.Wait, r.Backoff = r.base.count, nil, 0, 0
		r.add, r.drop, r.pages = nil, nil, map[uint64]score{}
	}
	r.Base, r.BasePages = id, r.base.count
	return id
}

// madeOf says whether a set is the candidate: without what that adds, and with what it leaves out, it is the
// set that there was.
func (r *Record) madeOf(set []Span) bool {
	pages := wss.NewBitmap(r.ImagePages)
	for _, s := range set {
		pages.SetRange(s.First, s.Count)
	}
	old := wss.NewBitmap(r.ImagePages)
	for _, p := range r.add {
		if !pages.Has(p.GFN) {
			return false
		}
		old.Set(p.GFN)
	}
	old = pages.AndNot(old)
	for _, gfn := range r.drop {
		if !old.Set(gfn) {
			return false
		}
	}
	return SetID(spansIn(old)) == r.Base
}

// A Restore is what one restore has shown.
type Restore struct {
	At time.Time
	// Base is the set that there was when it began, as Meet names it; Candidate the number of the candidate
	// that it brought instead, 0: none.
	Base      string
	Candidate uint64
	// Pages is the size of the set that it was to bring.
	Pages uint64
	// Sample and Checks were left out of that: see Hold.
	Sample, Checks []uint64
	// Brought says whether a page was brought without being asked for, so that nobody sees its use.
	Brought func(gfn uint64) bool
	// Touched is what the machine asked for, with times.
	Touched *wss.Set
	// Why is the reason why it does not count; "": it does.
	Why string
}

// Take learns from a restore that Begin has planned, and returns the line of the history about it.
func (r *Record) Take(x Restore) Entry {
	r.Restores++
	e := Entry{Restore: r.Restores, At: x.At, Set: SetOld, Pages: x.Pages}
	if x.Candidate != 0 {
		e.Set = SetCandidate
	}
	if x.Why == "" && x.Base != r.Base {
		x.Why = "the set was replaced meanwhile"
	}
	if x.Why != "" {
		e.Decision = "not counted: " + x.Why
		return r.note(e)
	}
	e.Counted = true
	touched := wss.NewBitmap(r.ImagePages)
	for first, n := range x.Touched.Ascending() {
		touched.SetRange(first, n)
	}
	out := wss.NewBitmap(r.ImagePages)
	for _, gfn := range slices.Concat(x.Sample, x.Checks) {
		out.Set(gfn)
	}
	e.HeldOut, e.Checked = uint64(len(x.Sample)), uint64(len(x.Checks))
	e.Used, e.CheckedUsed = countIn(x.Sample, touched), countIn(x.Checks, touched)
	for first, n := range touched.Runs() {
		for gfn := first; gfn < first+n; gfn++ {
			switch {
			case x.Brought(gfn):
				e.Late++
			case !out.Has(gfn):
				e.Missed++
			}
		}
	}
	r.score(x, touched)
	e.Decision = r.decide(x.Candidate, e.Late+e.Missed, x.At)
	return r.note(e)
}

func countIn(pages []uint64, in *wss.Bitmap) (n uint64) {
	for _, gfn := range pages {
		if in.Has(gfn) {
			n++
		}
	}
	return n
}
