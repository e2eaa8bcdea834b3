package wss

import (
	"cmp"
	"slices"
	"time"
)

// Touch is the first touch of Count pages from GFN on, as some tracer saw it.
type Touch struct {
	GFN, Count uint64
	At         time.Duration // since the start of the recording
	VCPU       int           // NoVCPU: not known
}

// Touches puts together what is known of the first touches of a traced machine: events, each with
// its time and vCPU, that may come twice and, of several vCPUs, somewhat out of order; and exact
// scans of which pages have been touched so far, which know neither. Not safe for concurrent use.
//
// A page counts with its first event. One that only a scan knows may have been touched at any time since the
// scan before: it counts with the time of that, 0 if there was none, so that it is there when it is wanted.
// Such pages are few where there are events: the hypervisor touches them itself, as those of the guest's
// clock, most of them at once. Its vCPU is unknown. Where there are no events at all, scans at short
// intervals still give an order, as fine as the intervals are short.
type Touches struct {
	pages  uint64
	seen   *Bitmap
	latest time.Duration
	scan   time.Duration // of the last scan
	list   []Touch       // a page may be in it several times: the earliest counts
	events uint64
	silent uint64
}

// NewTouches returns an empty collection for an image of that many pages.
func NewTouches(imagePages uint64) *Touches {
	return &Touches{pages: imagePages, seen: NewBitmap(imagePages)}
}

// Add takes an event. Pages that are not of the image, or were touched before, are left out.
func (t *Touches) Add(e Touch) {
	t.events++
	t.add(e)
}

// add returns the number of pages that were new.
func (t *Touches) add(e Touch) (fresh uint64) {
	if e.GFN >= t.pages {
		return 0
	}
	late := e.At < t.latest // it may be the first touch of a page that is known by a second one
	t.latest = max(t.latest, e.At)
	run := false // the last touch is of the page before
	for gfn, end := e.GFN, e.GFN+min(e.Count, t.pages-e.GFN); gfn < end; gfn++ {
		isNew := t.seen.Set(gfn)
		if isNew {
			fresh++
		}
		switch {
		case !isNew && !late:
			run = false
		case run:
			t.list[len(t.list)-1].Count++
		default:
			t.list = append(t.list, Touch{GFN: gfn, Count: 1, At: e.At, VCPU: e.VCPU})
			run = true
		}
	}
	return fresh
}

// Scanned takes the pages that an exact scan found touched, of which some may be known. All events from
// before it must have come.
func (t *Touches) Scanned(touched *Bitmap, at time.Duration) {
	for first, n := range touched.AndNot(t.seen).Runs() {
		t.silent += t.add(Touch{GFN: first, Count: n, At: t.scan, VCPU: NoVCPU})
	}
	t.scan = max(t.scan, at)
}

// Pages is the number of pages touched so far.
func (t *Touches) Pages() uint64 { return t.seen.Count() }

// Events is the number of events that came, those for known pages included.
func (t *Touches) Events() uint64 { return t.events }

// Silent is the number of pages for which no event came before a scan found them.
func (t *Touches) Silent() uint64 { return t.silent }

// Set makes a set of source trace out of it. dropped pages were too many for a set.
func (t *Touches) Set(way string, window time.Duration, created time.Time) (set *Set,
	dropped uint64) {
	slices.SortStableFunc(t.list, func(a, b Touch) int { return cmp.Compare(a.At, b.At) })
	r := NewRecorder(RecorderOptions{ImagePages: t.pages, Source: SourceTrace, Way: way})
	for _, e := range t.list {
		r.AddRun(e.GFN, e.Count, e.At, e.VCPU)
	}
	return r.Set(window, created), r.Dropped()
}
