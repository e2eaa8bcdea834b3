package scan

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Options say when a Scanner sweeps and which pages are the working set.
type Options struct {
	// Within is how far back a touch counts: the working set is the pages touched in this time before
	// the last sweep. It should be the time that a restore takes. 0: 10 s.
	Within time.Duration
	// Budget is the share of the guest's time that scanning may take. 0: 0.01.
	Budget float64
	// MinInterval and MaxInterval bound the time between sweeps, which follows from the budget. 0: 20
	// ms, and no maximum.
	MinInterval, MaxInterval time.Duration
	// Clock is the time source; nil: the system's clock.
	Clock Clock
}

// Defaults of Options.
const (
	DefaultWithin      = 10 * time.Second
	DefaultBudget      = 0.01
	DefaultMinInterval = 20 * time.Millisecond
)

func (o Options) withDefaults() Options {
	if o.Within <= 0 {
		o.Within = DefaultWithin
	}
	if o.Budget <= 0 {
		o.Budget = DefaultBudget
	}
	if o.MinInterval <= 0 {
		o.MinInterval = DefaultMinInterval
	}
	if o.MaxInterval <= 0 {
		o.MaxInterval = wss.MaxTime
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	return o
}

// ErrTooEarly says that there were fewer than two sweeps, so touched pages are not known.
var ErrTooEarly = errors.New("the working set is not known before the second sweep")

// Stats are the results and costs of scanning.
type Stats struct {
	Sweeps   int     `json:"sweeps"` // the first one included
	Seconds  float64 `json:"seconds"`
	Interval float64 `json:"interval_seconds"` // mean time between sweeps
	// Paused, LongestPause and Refault are the cost to the guest: how long it was paused, and the
	// estimated time for touching pages again (number of refaults times the cost of one).
	Paused       float64 `json:"paused_seconds"`
	LongestPause float64 `json:"longest_pause_seconds"`
	Refaults     uint64  `json:"refaults"`
	Refault      float64 `json:"refault_seconds"`
	Share        float64 `json:"share"` // of the guest's time
	Budget       float64 `json:"budget"`
}

// Scanner sweeps a source as often as its budget allows, and stores when pages were touched. Its
// methods may be called from any goroutine.
type Scanner struct {
	source Source
	o      Options

	mu     sync.Mutex
	gens   *generations
	begun  time.Time // start of the first sweep
	last   time.Time // end of the last sweep
	next   time.Time // start of the next sweep, by the budget
	stats  Stats
	paused time.Duration
	paid   time.Duration // the cost to the guest so far: pauses and refaults
	pause  time.Duration // the expected pause of the next sweep
}

// New returns a scanner. It does not sweep yet.
func New(source Source, o Options) *Scanner {
	o = o.withDefaults()
	return &Scanner{source: source, o: o, gens: newGenerations(source.Pages()),
		stats: Stats{Budget: o.Budget}}
}

// Sweep makes one sweep now.
func (s *Scanner) Sweep(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	begin := s.o.Clock.Now()
	if s.stats.Sweeps == 0 {
		s.begun = begin
	}
	sweep, err := s.source.Sweep(ctx)
	if err != nil {
		return fmt.Errorf("scan access bits: %w", err)
	}
	now := s.o.Clock.Now()
	if s.stats.Sweeps > 0 {
		s.gens.add(s.last, now, sweep.Fine, sweep.Coarse)
	}
	s.account(sweep, now)
	s.last = now
	return nil
}

// account adds the cost of a sweep and computes when the budget allows the next one, including its
// pause. The refaults that a sweep causes are only known at the next sweep; until then their number is
// assumed to be that of the last time.
func (s *Scanner) account(sweep Sweep, now time.Time) {
	refaults := time.Duration(sweep.Refaults) * sweep.Refault
	s.paid += sweep.Paused
	s.pause = sweep.Paused - sweep.Tested
	expected := time.Duration(0)
	if s.stats.Sweeps > 0 { // bits found by the first sweep were set before it
		s.paid += refaults
		s.stats.Refaults += sweep.Refaults
		expected = refaults + s.pause
	}
	s.stats.Sweeps++
	s.paused += sweep.Paused
	s.stats.LongestPause = max(s.stats.LongestPause, sweep.Paused.Seconds())
	s.stats.Refault = sweep.Refault.Seconds()
	due := s.begun.Add(time.Duration(float64(s.paid+expected) / s.o.Budget))
	s.next = now.Add(min(max(due.Sub(now), s.o.MinInterval), s.o.MaxInterval))
}

// Stats returns the results and costs so far.
func (s *Scanner) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statsAt(s.o.Clock.Now())
}

func (s *Scanner) statsAt(now time.Time) Stats {
	st := s.stats
	if st.Sweeps == 0 {
		return st
	}
	st.Seconds = now.Sub(s.begun).Seconds()
	st.Paused = s.paused.Seconds()
	if st.Sweeps > 1 {
		st.Interval = s.last.Sub(s.gens.sweeps[0].from).Seconds() / float64(st.Sweeps-1)
	}
	if st.Seconds > 0 {
		st.Share = s.paid.Seconds() / st.Seconds
	}
	return st
}

// Set returns the working set: the pages touched within Options.Within before the last sweep, the most
// recent first. The time of a run is its age. Way describes how it was found. The error is ErrTooEarly
// before the second sweep.
func (s *Scanner) Set() (*wss.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.gens.sweeps)
	if n == 0 {
		return nil, ErrTooEarly
	}
	oldest := s.gens.within(s.last.Add(-s.o.Within))
	runs, full := s.gens.runs(oldest, s.last)
	set := &wss.Set{
		ImagePages: s.source.Pages(),
		Window:     s.last.Sub(s.gens.sweeps[oldest-1].from).Truncate(time.Microsecond),
		Created:    s.last,
		Runs:       runs,
		Way:        s.way(oldest, full),
	}
	return set, nil
}

// way describes in words how the set was found, and where it does not meet the options.
func (s *Scanner) way(oldest int, full bool) string {
	st := s.statsAt(s.last)
	n := len(s.gens.sweeps)
	text := fmt.Sprintf("%s; touched within %v; %d sweeps, one in %v, %.2f %% of the guest's time "+
		"(longest pause %v, %d refaults of %v)", s.source.Way(), s.o.Within, st.Sweeps,
		seconds(st.Interval), 100*st.Share, seconds(st.LongestPause), st.Refaults,
		time.Duration(st.Refault*1e9))
	newest := s.gens.sweeps[n-1]
	if length := newest.to.Sub(newest.from); length > s.o.Within {
		text += fmt.Sprintf("; %v is shorter than the last interval of %v, which counts whole",
			s.o.Within, seconds(length.Seconds()))
	}
	if reach := s.last.Sub(s.gens.sweeps[0].from); oldest == 1 && reach < s.o.Within {
		text += fmt.Sprintf("; only the last %v are known", seconds(reach.Seconds()))
	}
	if st.Share > s.o.Budget*1.05 {
		text += fmt.Sprintf("; above the budget of %.2f %%", 100*s.o.Budget)
	}
	if full {
		text += "; more runs than a record can have: the oldest are left out"
	}
	return text
}

// seconds returns a time, rounded to three digits.
func seconds(s float64) time.Duration {
	d := time.Duration(s * 1e9)
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}

// Estimate makes a first sweep, which gives no information and may take long, sweeps for the given
// length after it, once more at the end, and returns the working set. If even two sweeps exceed the
// budget, the end is later, but at most after twice the length.
func (s *Scanner) Estimate(ctx context.Context, length time.Duration) (*wss.Set, error) {
	if err := s.Sweep(ctx); err != nil {
		return nil, err
	}
	end := s.o.Clock.Now().Add(length)
	limit := end.Add(length)
	for {
		if err := s.o.Clock.Sleep(ctx, s.waitUpTo(end, limit)); err != nil {
			return nil, err
		}
		if err := s.waitForBudget(ctx, limit); err != nil {
			return nil, err
		}
		if err := s.Sweep(ctx); err != nil {
			return nil, err
		}
		if !s.o.Clock.Now().Before(end) {
			return s.Set()
		}
	}
}

// waitUpTo returns how long to wait for the next sweep, so that the last one is at end, or later but
// not after limit. A sweep that would leave no budget for the last one is skipped.
func (s *Scanner) waitUpTo(end, limit time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, at := s.o.Clock.Now(), s.next
	if interval := s.next.Sub(s.last); at.Add(interval).After(end) {
		at = latest(end, at)
		if at.After(limit) {
			at = limit
		}
	}
	return max(at.Sub(now), s.o.MinInterval)
}

// waitForBudget waits until a sweep is within the budget, including the refaults that it will find, but
// not after limit. It does nothing if the source cannot count refaults before a sweep.
func (s *Scanner) waitForBudget(ctx context.Context, limit time.Time) error {
	p, ok := s.source.(Pender)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		refaults, err := p.Pending()
		if err != nil {
			return fmt.Errorf("look at access bits: %w", err)
		}
		cost := s.paid + s.pause + time.Duration(float64(refaults)*s.stats.Refault*1e9)
		due := s.begun.Add(time.Duration(float64(cost) / s.o.Budget))
		if due.After(limit) {
			due = limit
		}
		wait := due.Sub(s.o.Clock.Now())
		if wait <= 0 {
			return nil
		}
		if err := s.o.Clock.Sleep(ctx, max(wait, s.o.MinInterval)); err != nil {
			return err
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
