package report

import (
	"bytes"
	"encoding/json"
	"html"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/wss"
)

// working is a restore whose guest reports so many units at each of these milliseconds after its start.
func working(name string, ready int, units uint64, at ...int) Method {
	m := NewMethod(name, wss.Counts{Window: 2 * sec}, time.Duration(ready)*ms,
		time.Duration(ready)*ms+2*sec, nil)
	m.Pace = &Pace{Units: "transactions", Slice: 100 * ms, Counts: make([]uint64, 20), Ran: 2 * sec}
	for i, t := range at {
		m.Pace.Marks = append(m.Pace.Marks, Mark{uint64(i+1) * units, time.Duration(t) * ms})
		m.Pace.Counts[t/100] += units
	}
	return m
}

func TestReached(t *testing.T) {
	m := working("trace", 100, 256, 10, 20, 30, 40, 1500)
	for _, c := range []struct {
		units uint64
		want  time.Duration
		ok    bool
	}{
		{0, 110 * ms, true}, {1, 110 * ms, true}, {256, 110 * ms, true}, {257, 120 * ms, true},
		{1000, 140 * ms, true}, {1024, 140 * ms, true}, {1280, 1600 * ms, true},
		{1281, 2100 * ms, false},
	} {
		if got, ok := m.Reached(c.units); got != c.want || ok != c.ok {
			t.Errorf("%d units: %v %v, want %v %v", c.units, got, ok, c.want, c.ok)
		}
	}
	m.Pace = nil
	if _, ok := m.Reached(1); ok {
		t.Error("work that was not counted was done")
	}
}

func TestPoints(t *testing.T) {
	frames := make([]int, 60)
	for i := range frames {
		frames[i] = i * 1000 / 30
	}
	for _, c := range []struct {
		name string
		warm Method
		want []uint64
	}{
		{"a player", working("warm", 0, 1, frames...), []uint64{10}},
		{"a clock", working("warm", 0, 1, 0, 100, 200, 300, 400, 500, 600, 700, 800, 900), []uint64{10}},
		{"a heap", working("warm", 0, 2560, 100, 300, 500, 700, 900), []uint64{10_000}},
		{"a faster one", working("warm", 0, 256, frames...), []uint64{1000}},
		{"reports at once more than ten", working("warm", 0, 30, 200, 400, 600, 1100), []uint64{30}},
		{"what comes later does not count", working("warm", 0, 100, 1000, 1001), []uint64{100}},
		{"nothing in the first second", working("warm", 0, 100, 1001), nil},
		{"nothing", working("warm", 0, 1), nil},
	} {
		if d := cmp.Diff(c.want, Report{Warm: &c.warm}.Points()); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	for _, r := range []Report{{}, {Warm: &Method{}}, {Warm: &Method{Pace: &Pace{}}}} {
		if got := r.Points(); got != nil {
			t.Errorf("points without a warm run: %v", got)
		}
	}
}

// Points are powers of ten that the warm run did in its first second, the greatest and its tenth, as a
// search through all of them finds.
func TestPointsAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 0))
	for range 500 {
		units := uint64(1 + rng.IntN(300))
		var at []int
		for mark := rng.IntN(30); mark < 2000; mark += 1 + rng.IntN(60) {
			at = append(at, mark)
		}
		warm := working("warm", 0, units, at...)
		var want []uint64
		for n := uint64(10); n < 1e9; n *= 10 {
			if x, ok := warm.Reached(n); ok && x <= sec && n >= units {
				want = append(want, n)
			}
		}
		if len(want) > 2 {
			want = want[len(want)-2:]
		}
		if len(want) == 0 && units > 1 {
			want = []uint64{units}
		} else if len(want) == 0 {
			want = []uint64{1}
		}
		if d := cmp.Diff(want, Report{Warm: &warm}.Points()); d != "" {
			t.Fatalf("%d units at %v: %s", units, at, d)
		}
	}
}

// delayed is a comparison with a warm run and a set that came while the guest ran.
func delayed() Report {
	warm := working("warm", 50, 256, 10, 20, 30, 40, 50, 60, 70, 80)
	trace := working("trace", 60, 256, 10, 20, 30, 41, 52, 62, 72, 82)
	trace.Playout = &Playout{HeadStart: 0.0123, Margin: 1.5, LatePages: 3, LateMax: 0.001}
	trace.Stalls = in(80, 81, 90, 92)
	lazy := working("lazy", 55, 256, 90, 180, 270, 360, 1200)
	lazy.Stalls = in(60, 400)
	lazy.Longest = 123 * ms
	early := working("access", 30, 256, 10, 20, 30, 40)
	bare := NewMethod("raw-lazy", wss.Counts{Window: 2 * sec}, 10*ms, 2010*ms, nil)
	stuck := working("eager", 900, 256, 20, 40, 60)
	return Report{Methods: []Method{lazy, trace, early, bare, stuck}, Warm: &warm, GuestPages: 1000,
		Facts: []Fact{{Name: "guest", Value: strings.Repeat("words ", 30)}}}
}

func TestTableOfDelays(t *testing.T) {
	r := delayed()
	var out bytes.Buffer
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSentences(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/delays.txt", out.String())
	for _, line := range strings.Split(out.String(), "\n") {
		if n := len([]rune(line)); n > lineWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestDelaysJSON(t *testing.T) {
	text, err := json.Marshal(delayed())
	if err != nil {
		t.Fatal(err)
	}
	var got reportJSON
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := &warmJSON{Restore: 0.05, Units: "transactions", Done: []doneJSON{{1000, 0.09}}}
	if d := cmp.Diff(want, got.Warm); d != "" {
		t.Error(d)
	}
	byName := map[string]methodJSON{}
	for _, m := range got.Methods {
		byName[m.Method] = m
	}
	seconds := func(f float64) *float64 { return &f }
	for name, want := range map[string]delayJSON{
		"trace": {1000, seconds(0.011), nil}, "lazy": {1000, seconds(0.325), nil},
		"access": {1000, seconds(-0.02), nil}, "eager": {1000, nil, seconds(2.81)},
		"raw-lazy": {1000, nil, nil},
	} {
		if d := cmp.Diff([]delayJSON{want}, byName[name].Delays); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	trace := byName["trace"]
	if trace.HeadStart == nil || *trace.HeadStart != 0.0123 || *trace.LatePages != 3 ||
		trace.Runs[0].Playout.Margin != 1.5 || byName["lazy"].LatePages != nil {
		t.Errorf("playout: %+v", trace)
	}
	if n := len(trace.Runs[0].Slices.Marks); n != 4 {
		t.Errorf("%d marks", n)
	}
	if lazy := byName["lazy"]; lazy.Longest != 0.123 || lazy.Stalled != 0.34 {
		t.Errorf("stalls of lazy: %v, %v", lazy.Longest, lazy.Stalled)
	}
}

// The page and the figure of the work show what the table has.
func TestPageOfDelays(t *testing.T) {
	r := delayed()
	page := html.UnescapeString(breakable(pageOf(t, r)))
	for _, want := range []string{"at 1,000 transactions", "+0.011 s", "late pages", "head start",
		"It ran after 0.05 s and had done 1,000 after 0.09 s", "TTR(100 ms, 95 %)", "longest stall",
		"not more than 5 ms in any 100 ms", r.Headline(), r.Gain()} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	var svg bytes.Buffer
	if err := r.WriteWork(&svg); err != nil {
		t.Fatal(err)
	}
	texts := checkSVG(t, svg.Bytes())
	for _, want := range []string{"warm", "trace", "lazy", "transactions done",
		"seconds since the restore was asked for"} {
		if !strings.Contains(texts, want) {
			t.Errorf("the figure does not say %q", want)
		}
	}
	if strings.Contains(texts, "raw-lazy") {
		t.Error("the figure shows work that was not counted")
	}
}

// Stalls against a model of instants: the longest run of stalled ones, their number, and the TTR of
// windows of 100 ms.
func TestStallMeasuresAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 0))
	const end, w, allowed = 2000, 100, 5 // ms
	for range 300 {
		ready := rng.IntN(500)
		var stalled [end]bool
		var stalls []wss.Interval
		for range rng.IntN(60) {
			at := ready + rng.IntN(end-ready)
			to := min(at+rng.IntN(1+rng.IntN(40)), end)
			for i := at; i < to; i++ {
				stalled[i] = true
			}
			stalls = append(stalls, wss.Interval{Start: time.Duration(at) * ms, End: time.Duration(to) * ms})
		}
		var total, longest, run int
		for _, s := range stalled {
			if !s {
				run = 0
				continue
			}
			total, run = total+1, run+1
			longest = max(longest, run)
		}
		m := NewMethod("lazy", wss.Counts{}, time.Duration(ready)*ms, end*ms, stalls)
		if got := m.TotalStall(); got != time.Duration(total)*ms {
			t.Fatalf("total %v, want %d ms", got, total)
		}
		if got := m.LongestStall(); got != time.Duration(longest)*ms {
			t.Fatalf("longest %v, want %d ms", got, longest)
		}
		want, seen := end-w, true
		for x := end - w; x >= ready; x-- { // from the last window back, until one is bad
			n := 0
			for _, s := range stalled[x : x+w] {
				if s {
					n++
				}
			}
			if n > allowed {
				seen = x != end-w
				break
			}
			want = x
		}
		got, ok := m.TTR(SharpTTRWindow, SharpTTRUtilisation)
		if ok != seen || got != time.Duration(want)*ms {
			t.Fatalf("TTR %v %v, want %d ms %v", got, ok, want, seen)
		}
	}
}

// A stall that began before the first instruction or goes on at the end counts as far as it lies
// between.
func TestStallsAreCut(t *testing.T) {
	m := NewMethod("lazy", wss.Counts{}, 100*ms, 200*ms, in(50, 110, 190, 260, 300, 400))
	if m.TotalStall() != 20*ms || m.LongestStall() != 10*ms {
		t.Errorf("%v, longest %v", m.TotalStall(), m.LongestStall())
	}
}
