package scan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/wss"
)

// script is a source and a clock: what each sweep finds is made up as it goes.
type script struct {
	now    time.Time
	pages  uint64
	paused time.Duration
	sweep  func(n int) Sweep
	at     []time.Time // of the sweeps
	err    error
}

func newScript(pages uint64) *script {
	return &script{now: time.Unix(1000, 0), pages: pages, paused: 5 * time.Millisecond}
}

func (s *script) Pages() uint64  { return s.pages }
func (s *script) Way() string    { return "script" }
func (s *script) Now() time.Time { return s.now }

func (s *script) Sleep(ctx context.Context, d time.Duration) error {
	s.now = s.now.Add(max(d, 0))
	return ctx.Err()
}

func (s *script) Sweep(context.Context) (Sweep, error) {
	s.now = s.now.Add(s.paused)
	s.at = append(s.at, s.now)
	if s.err != nil {
		return Sweep{}, s.err
	}
	r := Sweep{Fine: wss.NewBitmap(s.pages), Coarse: wss.NewBitmap(s.pages)}
	if s.sweep != nil {
		r = s.sweep(len(s.at) - 1)
	}
	r.Paused = s.paused
	return r, nil
}

func (s *script) random(rng *rand.Rand, n int) Sweep {
	r := Sweep{Fine: wss.NewBitmap(s.pages), Coarse: wss.NewBitmap(s.pages)}
	for range n {
		r.Fine.Set(rng.Uint64N(s.pages))
		first := rng.Uint64N(s.pages)
		r.Coarse.SetRange(first, min(5, s.pages-first))
	}
	r.Refaults, r.Refault = uint64(n), time.Microsecond
	return r
}

// The set is what the sweeps of the last T found, the youngest first; the model looks at all.
func TestGenerationsAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		src := newScript(1 + rng.Uint64N(3*leafPages))
		var found []Sweep
		src.sweep = func(int) Sweep {
			s := src.random(rng, rng.IntN(30))
			found = append(found, s)
			return s
		}
		within := time.Duration(rng.IntN(3000)) * time.Millisecond
		s := New(src, Options{Within: within, Clock: src})
		sweeps := 2 + rng.IntN(8)
		for range sweeps {
			if err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			src.Sleep(t.Context(), time.Duration(rng.IntN(1000))*time.Millisecond)
		}
		got, err := s.Set()
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Validate(src.pages); err != nil {
			t.Fatal(err)
		}
		want := model(src, found, s.o.Within)
		if d := cmp.Diff(want, got.Runs); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

func model(src *script, found []Sweep, within time.Duration) (runs []wss.Run) {
	last := src.at[len(src.at)-1]
	seen := wss.NewBitmap(src.pages)
	for i := len(found) - 1; i > 0; i-- {
		if age := last.Sub(src.at[i]); i < len(found)-1 && age >= within {
			break
		}
		for _, b := range []*wss.Bitmap{found[i].Fine, found[i].Coarse} {
			fresh := b.AndNot(seen)
			for first, count := range fresh.Runs() {
				runs = append(runs, wss.Run{GFN: first, Count: count, At: last.Sub(src.at[i]),
					Source: wss.SourceAccess, VCPU: wss.NoVCPU})
			}
			seen = seen.Or(b)
		}
	}
	return runs
}

func TestTooEarly(t *testing.T) {
	src := newScript(100)
	s := New(src, Options{Clock: src})
	for range 2 {
		if _, err := s.Set(); !errors.Is(err, ErrTooEarly) {
			t.Errorf("error %v", err)
		}
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Set(); err != nil {
		t.Error(err)
	}
}

// Over a long time the guest loses no more than the budget, whatever a sweep costs, and not much
// less where the budget is what sets the pace.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		pause    time.Duration
		refaults int
		budget   float64
	}{
		{5 * time.Millisecond, 100, 0.01}, {16 * time.Millisecond, 20_000, 0.01},
		{100 * time.Microsecond, 10_000, 0.05}, {5 * time.Millisecond, 0, 0.001},
	} {
		t.Run(fmt.Sprintf("%v %d", c.pause, c.refaults), func(t *testing.T) {
			src := newScript(100)
			src.paused = c.pause
			rng := rand.New(rand.NewPCG(1, 1))
			src.sweep = func(n int) Sweep {
				s := src.random(rng, 5)
				s.Refaults, s.Refault = 0, 2*time.Microsecond
				if c.refaults > 0 {
					s.Refaults = uint64(c.refaults/2 + rng.IntN(c.refaults))
				}
				if n == 0 {
					s.Refaults = 10_000_000 // set since the boot: nothing that scanning cost
				}
				return s
			}
			s := New(src, Options{Budget: c.budget, Clock: src})
			for range 400 {
				if err := s.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				src.Sleep(t.Context(), s.next.Sub(src.Now()))
			}
			st := s.Stats()
			if st.Share > c.budget*1.01 || st.Share < c.budget*0.9 {
				t.Errorf("share %v of a budget of %v: %+v", st.Share, c.budget, st)
			}
			paid := st.Paused + float64(st.Refaults)*2e-6
			if want := paid / st.Seconds; st.Share/want > 1.0001 || st.Share/want < 0.9999 {
				t.Errorf("share %v, want %v", st.Share, want)
			}
		})
	}
}

func TestIntervalBounds(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want time.Duration
	}{
		{Options{MinInterval: 3 * time.Second}, 3 * time.Second},
		{Options{MaxInterval: 70 * time.Millisecond}, 70 * time.Millisecond},
		{Options{}, 500*time.Millisecond - 5*time.Millisecond}, // a pause of 5 ms, 1 %
	} {
		src := newScript(10)
		c.o.Clock = src
		s := New(src, c.o)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.next.Sub(src.Now()); got != c.want {
			t.Errorf("%+v: %v, want %v", c.o, got, c.want)
		}
	}
}

// What the record says of itself.
func TestWay(t *testing.T) {
	src := newScript(1000)
	src.sweep = func(int) Sweep { return src.random(rand.New(rand.NewPCG(1, 1)), 3) }
	for _, c := range []struct {
		within, length time.Duration
		budget         float64
		want, not      string
	}{
		{time.Second, 10 * time.Second, 0.01, "touched within 1s; ", "shorter"},
		{100 * time.Millisecond, 10 * time.Second, 0.01,
			"100ms is shorter than the last interval of", "only"},
		{time.Minute, 10 * time.Second, 0.01, "only the last 10s are known", "shorter"},
		{time.Second, time.Second, 0.0001, "above the budget of 0.01 %", "only the"},
	} {
		s := New(src, Options{Within: c.within, Budget: c.budget, Clock: src})
		set, err := s.Estimate(t.Context(), c.length)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(set.Way, c.want) || strings.Contains(set.Way, c.not) ||
			!strings.HasPrefix(set.Way, "script; ") {
			t.Errorf("way %q", set.Way)
		}
	}
}

// An estimate ends when it should, and has at least one interval.
func TestEstimate(t *testing.T) {
	src := newScript(100)
	begin := src.now
	for _, length := range []time.Duration{0, time.Millisecond, 10 * time.Second} {
		src.now, src.at = begin, nil
		set, err := New(src, Options{Clock: src}).Estimate(t.Context(), length)
		if err != nil || set == nil {
			t.Fatal(err)
		}
		took := src.now.Sub(src.at[0]) // the first sweep may take a while, and tells nothing
		if len(src.at) < 2 || took < length || took > length+100*time.Millisecond {
			t.Errorf("%v: took %v, %d sweeps", length, took, len(src.at))
		}
	}
	src.err = errGuest
	if _, err := New(src, Options{Clock: src}).Estimate(t.Context(), 0); !errors.Is(err, errGuest) {
		t.Errorf("error %v", err)
	}
	src.err = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(src, Options{Clock: src}).Estimate(ctx, time.Second); !errors.Is(err, ctx.Err()) {
		t.Errorf("a scan that was to end: %v", err)
	}
}

// pending is a script that tells how many refaults its next sweep will find.
type pending struct {
	*script
	refaults uint64
}

func (p pending) Pending() (uint64, error) { return p.refaults, nil }

// An estimate is within its budget too, if that is to be had in twice its time.
func TestEstimateKeepsItsBudget(t *testing.T) {
	for _, c := range []struct {
		pause    time.Duration
		refaults uint64
		over     bool
	}{{5 * time.Millisecond, 10_000, false}, {16 * time.Millisecond, 30_000, false},
		{time.Millisecond, 60_000, false}, {16 * time.Millisecond, 200_000, true}} {
		src := newScript(100)
		src.paused = c.pause
		src.sweep = func(int) Sweep {
			return Sweep{Fine: wss.NewBitmap(100), Coarse: wss.NewBitmap(100), Refaults: c.refaults,
				Refault: 2400 * time.Nanosecond}
		}
		const length = 10 * time.Second
		s := New(pending{src, c.refaults}, Options{Clock: src})
		if _, err := s.Estimate(t.Context(), length); err != nil {
			t.Fatal(err)
		}
		took := src.now.Sub(src.at[0])
		if st := s.Stats(); st.Share > 0.0101 != c.over || took > 2*length+100*time.Millisecond {
			t.Errorf("%+v: took %v, %+v", c, took, st)
		}
	}
}

// The whole, over the synthetic guest: everything that was touched since the second sweep before
// last is in the set, and nothing that was not touched within T and an interval.
func TestScanOfAMachine(t *testing.T) {
	m := newMachine(t, 3, low, high)
	k := newOS(m, osOptions{levels: 4, processes: 3, userPages: 400, cpus: 2})
	touchedAt := map[uint64]time.Time{}
	k.work = func(time.Duration) {
		// The set moves: of 400 pages each process uses 40, others each second.
		for i, c := range k.cpus {
			p := k.running[i]
			if k.rng.IntN(20) == 0 {
				k.schedule(i)
				p = k.running[i]
			}
			from := int(m.now.Unix()) % 10 * 40
			for range 5 {
				k.touch(c, p.va[from+k.rng.IntN(40)])
			}
		}
		for page := range m.touched {
			touchedAt[page] = m.now
		}
		m.cut()
	}
	const within = 2 * time.Second
	s := New(newTables(t, m, TableOptions{TestTime: shortTest}),
		Options{Within: within, MaxInterval: 200 * time.Millisecond, Clock: m})
	set, err := s.Estimate(t.Context(), 6*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Validate(m.ram.pages); err != nil {
		t.Fatal(err)
	}
	got := set.Bitmap()
	st := s.Stats()
	slack := 2 * time.Duration(st.Interval*float64(time.Second))
	for page, at := range touchedAt {
		switch age := m.now.Sub(at); {
		case age < within-slack && !got.Has(page):
			t.Errorf("page %d, touched %v ago, is missing", page, age)
		case age > within+slack && got.Has(page):
			t.Errorf("page %d, touched %v ago, is in the set", page, age)
		}
	}
	if n := set.Pages(); n < 240 || n > 600 {
		t.Errorf("%d pages", n)
	}
	for i := 1; i < len(set.Runs); i++ {
		if set.Runs[i].At < set.Runs[i-1].At {
			t.Fatal("the set is not ordered by age")
		}
	}
}
