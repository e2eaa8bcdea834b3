package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/wss"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// in makes intervals of pairs of milliseconds.
func in(pairs ...int) []wss.Interval {
	var all []wss.Interval
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, wss.Interval{Start: time.Duration(pairs[i]) * ms, End: time.Duration(pairs[i+1]) * ms})
	}
	return all
}

func TestTimelineIsTheUnion(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want []wss.Interval
	}{
		{"none", nil, nil},
		{"empty and inverted", in(5, 5, 9, 3), nil},
		{"unsorted", in(50, 60, 10, 20), in(10, 20, 50, 60)},
		{"overlapping", in(10, 30, 20, 40), in(10, 40)},
		{"touching", in(10, 20, 20, 30), in(10, 30)},
		{"one in another", in(10, 100, 20, 30, 40, 50), in(10, 100)},
		{"before the origin", in(-30, -10, -20, 5), in(-30, 5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := NewTimeline(c.in)
			if d := cmp.Diff(c.want, append([]wss.Interval(nil), got.Intervals()...)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTimelineKeepsItsInput(t *testing.T) {
	given := in(50, 60, 10, 20, 15, 30)
	NewTimeline(given)
	if d := cmp.Diff(in(50, 60, 10, 20, 15, 30), given); d != "" {
		t.Error("the caller's intervals were changed:", d)
	}
}

func TestFractions(t *testing.T) {
	tl := NewTimeline(in(0, 100, 150, 175, 290, 310))
	got := tl.Fractions(0, 350*ms, 100*ms)
	// [0,100): all; [100,200): 25; [200,300): 10; [300,350): 10 of 50.
	if d := cmp.Diff([]float64{1, 0.25, 0.10, 0.2}, got); d != "" {
		t.Error(d)
	}
	if tl.Fractions(0, 0, ms) != nil || tl.Fractions(0, ms, 0) != nil {
		t.Error("nothing has fractions")
	}
}

// The examples are worked by hand; the comment says where the worst window lies.
func TestMMU(t *testing.T) {
	for _, c := range []struct {
		name        string
		stalls      []wss.Interval
		from, to, w int // ms
		want        float64
	}{
		{"no stalls", nil, 0, 10_000, 1000, 1},
		{"nothing observed", in(0, 10), 5, 5, 1000, 1},
		{"one stall of 300 ms, [2000,3000)", in(2000, 2300), 0, 10_000, 1000, 0.7},
		{"two within a second, [1000,2000)", in(1000, 1100, 1800, 1900), 0, 10_000, 1000, 0.8},
		{"the window ends with a stall, [1500,2500)", in(1000, 1600, 2000, 2500), 0, 10_000, 1000, 0.4},
		{"cut by the start: [0,1000) holds 100 of 200", in(-100, 100), 0, 10_000, 1000, 0.9},
		{"cut by the end: [9000,10000) holds 400", in(9600, 11_000), 0, 10_000, 1000, 0.6},
		{"a stall longer than the window", in(1000, 5000), 0, 10_000, 1000, 0},
		{"window longer than the observation", in(0, 250), 0, 500, 1000, 0.5},
		{"instants: any stall is everything", in(1000, 1001), 0, 10_000, 0, 0},
		{"instants: none", in(20_000, 20_001), 0, 10_000, 0, 1},
		{"overlapping requests count once", in(0, 100, 50, 150, 60, 70), 0, 10_000, 1000, 0.85},
		{"10 faults of 10 ms a second: 90 %", disk(10, 10), 0, 10_000, 1000, 0.9},
		{"100 faults of 10 ms a second: nothing left", disk(100, 10), 0, 10_000, 1000, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := NewTimeline(c.stalls).MMU(time.Duration(c.from)*ms, time.Duration(c.to)*ms,
				time.Duration(c.w)*ms)
			if math.Abs(got-c.want) > 1e-12 {
				t.Errorf("MMU = %v, want %v", got, c.want)
			}
		})
	}
}

// disk makes that many faults a second for ten seconds, evenly spread.
func disk(perSecond, msEach int) []wss.Interval {
	var all []int
	for i := range 10 * perSecond {
		at := i * 1000 / perSecond
		all = append(all, at, at+msEach)
	}
	return in(all...)
}

// VEE'11, section 2.2 and 2.3, and design.md: the edge cases and examples worked by hand.
func TestTTR(t *testing.T) {
	idle := in( // a lazy restore: solid for 2 s, then half of each 100 ms for 1 s, then two spikes
		0, 2000,
		2000, 2050, 2100, 2150, 2200, 2250, 2300, 2350, 2400, 2450,
		2500, 2550, 2600, 2650, 2700, 2750, 2800, 2850, 2900, 2950,
		5000, 5150, 7000, 7050)
	for _, c := range []struct {
		name          string
		stalls        []wss.Interval
		ready, end, w int // ms
		u             float64
		want          int
		ok            bool
	}{
		{"u = 0: any degradation is fine, right away", idle, 0, 20_000, 1000, 0, 0, true},
		{"u = 100 %: when the last page came on demand", idle, 0, 20_000, 1000, 1, 7050, true},
		{"u = 100 %, another window", idle, 0, 20_000, 100, 1, 7050, true},
		{"u above 100 % is 100 %", idle, 0, 20_000, 1000, 1.5, 7050, true},
		// 200 allowed: [2550,3550) holds the last 4 stalls of 50, and [2549,3549) 1 ms more. Later
		// windows hold the spike of 150 or that of 50.
		{"u = 80 %", idle, 0, 20_000, 1000, 0.8, 2550, true},
		// 300 allowed: [2350,3350) holds the last 6 stalls of 50.
		{"u = 70 %", idle, 0, 20_000, 1000, 0.7, 2350, true},
		// 100 allowed: [2750,3750) holds the last 2 of 50; but a window with the spike of 150 holds
		// too much as long as it begins before 5050, where 100 of the spike are left.
		{"u = 90 %: the spike counts", idle, 0, 20_000, 1000, 0.9, 5050, true},
		// 50 allowed, one half in each 100 ms: good from 2000 on but for the first spike.
		{"u = 50 %, w = 100 ms", idle, 0, 20_000, 100, 0.5, 5100, true},
		{"a window of 10 s smooths it", idle, 0, 20_000, 10_000, 0.7, 0, true},

		{"eager: same for all u", nil, 32_000, 40_000, 1000, 0.01, 32_000, true},
		{"eager: same for u = 100 %", nil, 32_000, 40_000, 1000, 1, 32_000, true},
		{"eager: same for all w", nil, 32_000, 40_000, 8000, 0.8, 32_000, true},
		{"eager: same for w = 0", nil, 32_000, 40_000, 0, 0.8, 32_000, true},
		{"eager: what was fetched before the start does not count after it",
			in(0, 32_000), 32_000, 40_000, 1000, 1, 32_000, true},

		{"prefetch, then one spike", in(1500, 1800), 1000, 10_000, 1000, 0.8, 1600, true},
		{"prefetch, then few", in(1500, 1600), 1000, 10_000, 1000, 0.8, 1000, true},
		{"exactly what is allowed", in(1500, 1700), 1000, 10_000, 1000, 0.8, 1000, true},
		{"1 ms more than allowed", in(1500, 1701), 1000, 10_000, 1000, 0.8, 1501, true},

		{"the last window is bad", in(9500, 9900), 0, 10_000, 1000, 0.8, 9000, false},
		{"shorter than a window", nil, 0, 900, 1000, 0.8, 0, false},
		{"shorter than a window, after a prefetch", nil, 500, 900, 1000, 0.8, 500, false},
		{"u = 0 needs no observation", nil, 500, 900, 1000, 0, 0, true},
		{"w = 0: the end of the last stall", idle, 0, 20_000, 0, 0.1, 7050, true},
		{"w = 0, stalled at the end", in(9000, 11_000), 0, 10_000, 0, 0.1, 10_000, false},
		{"w = 0, stalls after the end do not count", in(1, 2, 50_000, 50_001), 0, 10_000, 0, 1, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := TTR(c.stalls, time.Duration(c.ready)*ms, time.Duration(c.end)*ms,
				time.Duration(c.w)*ms, c.u)
			if got != time.Duration(c.want)*ms || ok != c.ok {
				t.Errorf("TTR = %v %v, want %v %v", got, ok, time.Duration(c.want)*ms, c.ok)
			}
		})
	}
}

// brute is the definition, tried at every nanosecond.
type brute []bool // stalled in [i, i+1)

func (b brute) stalled(from, to int) (n int) {
	for x := max(from, 0); x < min(to, len(b)); x++ {
		if b[x] {
			n++
		}
	}
	return n
}

func (b brute) mmu(from, to, w int) float64 {
	if to <= from {
		return 1
	}
	w = min(w, to-from)
	worst := 0
	for x := from; x+w <= to; x++ {
		worst = max(worst, b.stalled(x, x+w))
	}
	return 1 - float64(worst)/float64(w)
}

func (b brute) ttr(ready, end, w int, u float64) (int, bool) {
	if u <= 0 {
		return 0, true
	}
	good := func(x int) bool {
		return float64(w-b.stalled(x, x+w)) >= min(u, 1)*float64(w)-1e-6
	}
	last := end - w
	if last < ready {
		return ready, false
	}
	if !good(last) {
		return last, false
	}
	x := last
	for x > ready && good(x-1) {
		x--
	}
	return x, true
}

func TestAgainstBruteForce(t *testing.T) {
	const length = 120
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		model := make(brute, length)
		var stalls []wss.Interval
		for range rng.IntN(9) {
			start := rng.IntN(length)
			end := min(start+rng.IntN(25), length)
			stalls = append(stalls, wss.Interval{Start: time.Duration(start), End: time.Duration(end)})
			for x := start; x < end; x++ {
				model[x] = true
			}
		}
		from, to, w := rng.IntN(length/2), rng.IntN(length), 1+rng.IntN(40)
		u := float64(rng.IntN(21)) / 20
		if rng.IntN(2) == 0 {
			u = rng.Float64()
		}
		tl := NewTimeline(stalls)
		at := fmt.Sprintf("seed %d: %v from %d to %d w %d u %v", seed, stalls, from, to, w, u)
		if got, want := tl.Stalled(time.Duration(from), time.Duration(to)),
			model.stalled(from, to); int(got) != want {
			t.Fatalf("%s: stalled %d, want %d", at, got, want)
		}
		got := tl.MMU(time.Duration(from), time.Duration(to), time.Duration(w))
		if want := model.mmu(from, to, w); math.Abs(got-want) > 1e-9 {
			t.Fatalf("%s: MMU %v, want %v", at, got, want)
		}
		x, ok := tl.TTR(time.Duration(from), time.Duration(to), time.Duration(w), u)
		if want, wantOK := model.ttr(from, to, w, u); int(x) != want || ok != wantOK {
			t.Fatalf("%s: TTR %d %v, want %d %v", at, x, ok, want, wantOK)
		}
	}
}

// TTR never gets better by asking for more, and MMU never better by more stalls.
func TestMonotone(t *testing.T) {
	stalls := crawl(0, 5*sec, 0.5)
	tl := NewTimeline(stalls)
	last := time.Duration(0)
	for u := 0.0; u <= 1; u += 0.01 {
		x, ok := tl.TTR(0, 20*sec, sec, u)
		if !ok || x < last {
			t.Fatalf("TTR(%v) = %v %v after %v", u, x, ok, last)
		}
		last = x
	}
	before := tl.MMU(0, 20*sec, sec)
	more := NewTimeline(append(stalls, wss.Interval{Start: 6 * sec, End: 7 * sec}))
	if after := more.MMU(0, 20*sec, sec); after > before {
		t.Errorf("MMU %v, with one more stall %v", before, after)
	}
}

func BenchmarkTTR(b *testing.B) {
	stalls := crawl(0, 1000*sec, 0.5) // about 60,000 stalls
	b.ReportMetric(float64(len(stalls)), "stalls")
	for b.Loop() {
		TTR(stalls, 0, 2000*sec, sec, 0.8)
	}
}

func BenchmarkMMU(b *testing.B) {
	tl := NewTimeline(crawl(0, 1000*sec, 0.5))
	for b.Loop() {
		tl.MMU(0, 2000*sec, sec)
	}
}
