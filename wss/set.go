package wss

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// PageSize is the size of a guest page in bytes.
const PageSize = 4096

// Limits that hold for every set, so that a hostile file cannot make its reader spend memory or
// time without end.
const (
	// MaxImagePages is the largest image that a set can describe (4 PiB).
	MaxImagePages = 1 << 40
	// MaxRuns is the largest number of runs in a set: 8 GiB if every run were a single page. A set
	// of that many costs 100 MiB.
	MaxRuns = 2 << 20
	// MaxVCPU is the highest vCPU number.
	MaxVCPU = 1<<16 - 1
	// MaxTime is the latest time and the longest window that a set can hold.
	MaxTime = 100 * 365 * 24 * time.Hour
)

// ErrBadSet matches (errors.Is) every error about a working set that is malformed, does not fit
// its image, or is beyond the limits.
var ErrBadSet = errors.New("bad working set")

// Source says how a run came to be known. It is one word of [a-z0-9-], 1..32 bytes.
type Source string

// The sources that thaw knows; a reader keeps others as they are.
const (
	SourceRead   Source = "read"   // what a lazy restore read on demand (any VMM)
	SourceAccess Source = "access" // access bits of the guest's page tables, before the checkpoint
	SourceTrace  Source = "trace"  // memory accesses traced just after the checkpoint
	// SourceLearned is all of these that have times, and what restores missed, in one order: package learn.
	// SourceMissed is what they missed where the set has no times.
	SourceLearned Source = "learned"
	SourceMissed  Source = "missed"
)

// NoVCPU is the VCPU of a run whose vCPU is not known.
const NoVCPU = -1

// Run is Count pages from GFN on, first touched in ascending order at (or just after) At.
type Run struct {
	GFN, Count uint64
	// At is since the start of the recording, whole microseconds; of SourceRead without the time in which
	// the machine waited for its READs.
	At     time.Duration
	Source Source
	VCPU   int // NoVCPU: not known
}

// End is the first gfn after the run.
func (r Run) End() uint64 { return r.GFN + r.Count }

// recordTime rounds a time as the record stores it: to whole microseconds, 0 to MaxTime.
func recordTime(at time.Duration) time.Duration {
	return min(max(at, 0), MaxTime).Truncate(time.Microsecond)
}

// Field is a header line of the record that this package has no name for.
type Field struct{ Key, Value string }

// Set is a working set: which pages a machine touched, in first-touch order. Within one source
// every page stands at most once; several sources may lie side by side in one set.
type Set struct {
	ImagePages uint64        // size of the image that the gfns belong to
	Window     time.Duration // how long was recorded; 0: not known
	Way        string        // how, in words ("read trace, 4 KiB"); one line
	Created    time.Time     // zero: not known
	Runs       []Run         // in first-touch order
	Extra      []Field       // unknown header lines, kept in order
}

// Pages is the number of distinct pages in the set, whatever the source.
func (s *Set) Pages() (n uint64) {
	for _, count := range s.Ascending() {
		n += count
	}
	return n
}

// Ascending goes through the pages in ascending order as (first gfn, count), each page once.
func (s *Set) Ascending() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		var next uint64
		for _, i := range Ascending(s.Runs) {
			r := s.Runs[i]
			first := max(r.GFN, next)
			if r.End() <= first {
				continue
			}
			if !yield(first, r.End()-first) {
				return
			}
			next = r.End()
		}
	}
}

// Bytes is the guest memory in the set.
func (s *Set) Bytes() int64 { return int64(s.Pages()) * PageSize }

// Sources lists the sources that occur, sorted.
func (s *Set) Sources() []Source {
	var all []Source
	for _, r := range s.Runs {
		if !slices.Contains(all, r.Source) {
			all = append(all, r.Source)
		}
	}
	slices.Sort(all)
	return all
}

// GFNs goes through the pages in first-touch order, each page once: a page that a second source
// names again is left out there. The set must be valid.
func (s *Set) GFNs() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		var seen *Bitmap // of more than one source, which may name a page again
		if len(s.Sources()) > 1 {
			seen = NewBitmap(s.ImagePages)
		}
		for _, r := range s.Runs {
			for gfn := r.GFN; gfn < r.End(); gfn++ {
				if (seen == nil || seen.Set(gfn)) && !yield(gfn) {
					return
				}
			}
		}
	}
}

// First returns the set with some of its pages in front, wanted at once: those that whoever restores the
// machine reads before it runs.
func (s *Set) First(pages *Bitmap) *Set {
	out := *s
	var rest []Run
	out.Runs = nil
	for _, r := range s.Runs {
		for first := r.GFN; first < r.End(); {
			part := r
			in := pages.Has(first)
			for part.GFN, part.Count = first, 1; part.End() < r.End() && pages.Has(part.End()) == in; {
				part.Count++
			}
			first = part.End()
			if in {
				part.At = 0
				out.Runs = append(out.Runs, part)
			} else {
				rest = append(rest, part)
			}
		}
	}
	out.Runs = append(out.Runs, rest...)
	return &out
}

// Bitmap returns the pages of the set as a bitmap. The set must be valid.
func (s *Set) Bitmap() *Bitmap {
	b := NewBitmap(s.ImagePages)
	for _, r := range s.Runs {
		b.SetRange(r.GFN, r.Count)
	}
	return b
}

// Validate checks that the set is well formed and belongs to an image of that many pages. It needs
// memory for the runs, not for the pages that they claim. Its errors match ErrBadSet.
func (s *Set) Validate(imagePages uint64) error {
	switch {
	case s.ImagePages != imagePages:
		return badSet("it was recorded of an image of %d pages, this image has %d",
			s.ImagePages, imagePages)
	case s.ImagePages == 0 || s.ImagePages > MaxImagePages:
		return badSet("an image of %d pages (1 to %d can be)", s.ImagePages, uint64(MaxImagePages))
	case s.Window < 0 || s.Window > MaxTime:
		return badSet("window of %v", s.Window)
	case len(s.Runs) > MaxRuns:
		return badSet("%d runs, at most %d can be", len(s.Runs), MaxRuns)
	}
	if err := s.checkHeader(); err != nil {
		return err
	}
	for i, r := range s.Runs {
		if err := r.check(s.ImagePages); err != nil {
			return badSet("run %d: %v", i, err)
		}
	}
	return s.checkOverlap()
}

// check tests one run by itself.
func (r Run) check(imagePages uint64) error {
	switch {
	case r.Count == 0:
		return errors.New("no pages")
	case r.GFN >= imagePages || r.Count > imagePages-r.GFN:
		return fmt.Errorf("%d pages from gfn %d reach beyond the image's %d",
			r.Count, r.GFN, imagePages)
	case r.At < 0 || r.At > MaxTime:
		return fmt.Errorf("time %v", r.At)
	case r.VCPU < NoVCPU || r.VCPU > MaxVCPU:
		return fmt.Errorf("vCPU %d", r.VCPU)
	case !r.Source.valid():
		return fmt.Errorf("%.40q is not a name for a source", string(r.Source))
	}
	return nil
}

func (s Source) valid() bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 32
}

// checkOverlap finds a page that one source names twice. Without this a few runs of a hostile file
// could claim an image over and over, and a reader that goes through the pages would not come to an end.
func (s *Set) checkOverlap() error {
	ends := map[Source]uint64{} // of the runs so far, in ascending order
	for _, i := range Ascending(s.Runs) {
		r := &s.Runs[i]
		if r.GFN < ends[r.Source] {
			return badSet("gfn %d appears twice (source %s)", r.GFN, r.Source)
		}
		ends[r.Source] = r.End()
	}
	return nil
}

// Ascending returns the numbers of valid runs in the order of their gfns. Numbers with their gfns in front
// are sorted in a fraction of the time that runs take, since they can be compared as they are.
func Ascending(runs []Run) []int {
	const bits = 22 // of a number: MaxRuns has 22, MaxImagePages 41
	keys := make([]uint64, len(runs))
	for i, r := range runs {
		keys[i] = r.GFN<<bits | uint64(i)
	}
	slices.Sort(keys)
	numbers := make([]int, len(keys))
	for i, k := range keys {
		numbers[i] = int(k & (1<<bits - 1))
	}
	return numbers
}

func badSet(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadSet, fmt.Sprintf(format, args...))
}
