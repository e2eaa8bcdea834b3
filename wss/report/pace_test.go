package report

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// paceOf is a pace of so many units in each second, in slices of a tenth.
func paceOf(perSecond ...uint64) Pace {
	p := Pace{Units: "frames", Slice: 100 * ms, Ran: time.Duration(len(perSecond)) * sec}
	for _, n := range perSecond {
		for i := range uint64(10) {
			p.Counts = append(p.Counts, n*(i+1)/10-n*i/10)
		}
	}
	return p
}

func TestPace(t *testing.T) {
	p := NewPace("frames", 0.1, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20}, 5*sec)
	if p.Slice != 100*ms || p.Total() != 75 || p.PerSecond() != 15 {
		t.Errorf("%+v: %d, %v a second", p, p.Total(), p.PerSecond())
	}
	for _, c := range []struct {
		from, to time.Duration
		want     float64
	}{
		{0, sec, 55}, {0, 10 * sec, 75}, {-sec, 100 * ms, 1}, {50 * ms, 150 * ms, 1.5},
		{1050 * ms, 1075 * ms, 5}, {1100 * ms, 2 * sec, 0}, {sec, sec, 0}, {2 * sec, sec, 0},
	} {
		if got := p.Within(c.from, c.to); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("within %v to %v: %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if none := (Pace{}); none.Total() != 0 || none.PerSecond() != 0 || none.Within(0, sec) != 0 {
		t.Error("a pace of nothing is something")
	}
}

func TestSteady(t *testing.T) {
	for _, c := range []struct {
		name            string
		tail            time.Duration
		runs            []Pace
		mean, deviation float64
		windows         int
		ok              bool
	}{
		{"none", 0, nil, 0, 0, 0, false},
		{"one window", 0, []Pace{paceOf(30)}, 0, 0, 1, false},
		{"nothing done", 0, []Pace{paceOf(0, 0, 0)}, 0, 0, 3, false},
		{"all of it", 0, []Pace{paceOf(10, 20, 30)}, 20, 10, 3, true},
		{"the tail", 2 * sec, []Pace{paceOf(0, 0, 30, 30)}, 30, 0, 2, true},
		{"two runs", 2 * sec, []Pace{paceOf(0, 28, 32), paceOf(29, 31)}, 30, math.Sqrt(10. / 3), 4,
			true},
		{"a longer tail than run", 9 * sec, []Pace{paceOf(10, 30)}, 20, math.Sqrt(200), 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ok := SteadyOf(sec, c.tail, c.runs...)
			if ok != c.ok || math.Abs(s.Mean-c.mean) > 1e-9 || s.Windows != c.windows ||
				math.Abs(s.Deviation-c.deviation) > 1e-9 {
				t.Errorf("%+v %v", s, ok)
			}
		})
	}
}

func TestRecovery(t *testing.T) {
	steady := Steady{Mean: 30, Deviation: 1, Window: sec}
	for _, c := range []struct {
		name string
		pace Pace
		want time.Duration
		ok   bool
	}{
		{"never disturbed", paceOf(30, 30, 30, 30), 0, true},
		{"slow for two seconds", paceOf(10, 10, 30, 30, 30, 30), 2000 * ms, true},
		{"a relapse", paceOf(30, 30, 10, 30, 30, 30, 30), 3000 * ms, true},
		{"one window a little low", paceOf(30, 28, 30, 30, 30), 0, true},
		{"a burst does not pay for a pause", paceOf(90, 0, 30, 30, 30), 2000 * ms, true},
		{"faster than ever", paceOf(60, 60, 60, 60), 0, true},
		{"never", paceOf(10, 10, 10, 10), 1100 * ms, false},
		{"not for long enough", paceOf(10, 10, 30, 30), 1100 * ms, false},
		{"seen too briefly", paceOf(30), 0, false},
		{"nothing", Pace{}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := c.pace.Recovery(steady, 3*sec)
			if ok != c.ok || got > c.want || got < c.want-100*ms {
				t.Errorf("%v %v, want %v %v", got, ok, c.want, c.ok)
			}
		})
	}
}

// A guest that works at its steady pace, with all its noise, has recovered at once or soon after;
// one that was held up for some time recovers about when that was over.
func TestRecoveryOfNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 0))
	noisy := func(held time.Duration) Pace {
		p := Pace{Slice: 100 * ms, Ran: 40 * sec}
		for at := time.Duration(0); at < p.Ran; at += p.Slice {
			n := uint64(max(830+rng.NormFloat64()*140, 0)) // 8300 ± 440 a second, as SPECjbb
			if at < held {
				n /= 5
			}
			p.Counts = append(p.Counts, n)
		}
		return p
	}
	for range 50 {
		s, ok := SteadyOf(sec, 20*sec, noisy(0))
		if !ok || s.Mean < 8000 || s.Mean > 8600 || s.Deviation < 150 || s.Deviation > 900 {
			t.Fatalf("%+v", s)
		}
		held := time.Duration(rng.IntN(10_000)) * ms
		got, ok := noisy(held).Recovery(s, 3*sec)
		if !ok || got < held-sec/2 || got > held+4*sec {
			t.Fatalf("held up for %v, recovered after %v %v", held, got, ok)
		}
	}
}
