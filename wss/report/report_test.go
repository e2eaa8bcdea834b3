package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/wss"
)

// poster is the poster's machine (262,144 pages) restored four times, with stalls that look like
// its figures: eager reads for 70 s, lazy crawls for 25 s, the working-set restores hardly stall.
func poster() Report {
	const pages = 262_144
	end := 30 * time.Second
	window := 10 * time.Second
	eager := NewMethod("eager", wss.Counts{Prefetched: pages, Window: window},
		32*time.Second, 32*time.Second+end, nil)
	lazy := NewMethod("lazy", wss.Counts{Lazy: 1675, Window: window},
		100*ms, 100*ms+end, crawl(100*ms, 25*sec, 0.93))
	access := NewMethod("access", wss.Counts{Prefetched: 11_181, Skipped: 11_181, Lazy: 75, Window: window},
		1900*ms, 1900*ms+end, crawl(1900*ms, 4*sec, 0.3))
	trace := NewMethod("trace", wss.Counts{Prefetched: 11_295, Skipped: 11_293, Lazy: 11, Window: window},
		1920*ms, 1920*ms+end, crawl(1920*ms, 2*sec, 0.05))
	// Lazy was run first: it made the trace.
	return Report{GuestPages: pages, Methods: []Method{lazy, eager, access, trace}}
}

// crawl makes disk reads of about 10 ms that take up a share of the time from start on.
func crawl(start, length time.Duration, share float64) []wss.Interval {
	rng := rand.New(rand.NewPCG(1, uint64(length)))
	var in []wss.Interval
	for at := start; at < start+length; {
		read := time.Duration((8 + 4*rng.Float64()) * float64(time.Millisecond))
		in = append(in, wss.Interval{Start: at, End: at + read})
		at += read + time.Duration(2*rng.Float64()*float64(read)*(1-share)/share)
	}
	return in
}

func TestTable(t *testing.T) {
	r := poster()
	r.Methods[2].End = r.Methods[2].Ready + 500*ms // seen for less than a window
	var out bytes.Buffer
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	want := `
method  prefetched  skipped   lazy  recall  precision
eager      262,144      n/a    n/a     n/a        n/a
lazy             0      n/a  1,675     n/a        n/a
access      11,181   11,181     75  99.3 %    100.0 %
trace       11,295   11,293     11  99.9 %    100.0 %

                 TTR(1 s,  TTR(100 ms,   longest    total
method  restore     80 %)        95 %)     stall    stall
eager      32 s      32 s         32 s       0 s      0 s
lazy      0.1 s    24.9 s       25.1 s   0.012 s   23.3 s
access    1.9 s   > 1.9 s      > 2.3 s  0.0117 s   0.19 s
trace    1.92 s    1.92 s       3.88 s  0.0118 s  0.125 s

pages of 4 KiB; skipped and lazy are counted over the first 10 s of the guest; times are from the
request on, stalls from the guest's first instruction on
`
	if d := cmp.Diff(want, "\n"+out.String()); d != "" {
		t.Error(d)
	}
}

func TestTableOfNothing(t *testing.T) {
	var out bytes.Buffer
	if err := (Report{}).Table(&out); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%v: %q", err, out.String())
	}
}

func TestTableOfRepetitions(t *testing.T) {
	r := repeated()
	var out bytes.Buffer
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/table.txt", out.String())
}

var update = flag.Bool("update", false, "write the files in testdata")

// golden compares a text with a file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
}

// repeated is the poster's comparison, made three times, with the application's own measure.
func repeated() Report {
	r := poster()
	once := r.Methods
	r.Methods = nil
	for i := range 3 {
		for _, m := range once {
			shift := time.Duration(i*(i+1)) * 50 * ms
			m.Lazy += uint64(i)
			m.Pace = &Pace{Units: "frames", Slice: 100 * ms, Ran: m.End - m.Ready}
			stalls := NewTimeline(m.Stalls)
			for at := m.Ready; at < m.End; at += m.Pace.Slice {
				share := 1 - stalls.Fractions(at, at+m.Pace.Slice, m.Pace.Slice)[0]
				m.Pace.Counts = append(m.Pace.Counts, uint64(3*share+0.5))
			}
			m.Ready, m.End = m.Ready+shift, m.End+shift
			m.Stalls = slices.Clone(m.Stalls)
			for j := range m.Stalls {
				m.Stalls[j].Start += shift
				m.Stalls[j].End += shift
			}
			r.Methods = append(r.Methods, m)
		}
	}
	r.Methods[0].End = r.Methods[0].Ready + 10*sec // a lazy one that was not watched for long enough
	r.Facts = []Fact{{Name: "disk", Value: "hdd: 10 ms a seek, 100 MB/s"},
		{Name: "dropped", Value: "page cache of the packs"},
		{Name: "stalls of lazy", Value: "by vCPU against by request", Detail: true}}
	return r
}

func TestReportJSON(t *testing.T) {
	r := poster()
	r.Methods = []Method{r.Methods[2], r.Methods[0]}
	r.Methods[1].Stalls = []wss.Interval{{Start: 100 * ms, End: 600 * ms}}
	r.Methods[0].End = r.Methods[0].Ready + 500*ms
	r.Methods[0].Stalls = nil
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	promised := `{
 "guest_pages": 262144,
 "ttr_window_seconds": 1,
 "ttr_utilisation": 0.8,
 "methods": [
  {
   "method": "lazy",
   "prefetched": 0,
   "skipped": null,
   "lazy": 1675,
   "restore_seconds": 0.1,
   "ttr_seconds": 0.4,
   "ttr": [{"u": 0.7, "seconds": 0.3, "window_seconds": 1},
    {"u": 0.8, "seconds": 0.4, "window_seconds": 1},
    {"u": 0.95, "seconds": 0.595, "window_seconds": 0.1}],
   "recall": null,
   "precision": null,
   "window_seconds": 10,
   "observed_seconds": 30.1,
   "stall_seconds": 0.5,
   "longest_stall_seconds": 0.5
  },
  {
   "method": "access",
   "prefetched": 11181,
   "skipped": 11181,
   "lazy": 75,
   "restore_seconds": 1.9,
   "ttr_seconds": null,
   "ttr_above_seconds": 1.9,
   "ttr": [{"u": 0.7, "seconds": null, "above_seconds": 1.9, "window_seconds": 1},
    {"u": 0.8, "seconds": null, "above_seconds": 1.9, "window_seconds": 1},
    {"u": 0.95, "seconds": 1.9, "window_seconds": 0.1}],
   "recall": 0.9933368869936035,
   "precision": 1,
   "window_seconds": 10,
   "observed_seconds": 2.4,
   "stall_seconds": 0,
   "longest_stall_seconds": 0
  }
 ]
}`
	if err := json.Unmarshal([]byte(promised), &want); err != nil {
		t.Fatal(err)
	}
	for i, m := range got["methods"].([]any) {
		m := m.(map[string]any)
		runs := m["runs"].([]any)
		if len(runs) != 1 {
			t.Fatalf("%d runs", len(runs))
		}
		delete(m, "runs")
		// The one repetition says the same, and what it was computed from.
		run := runs[0].(map[string]any)
		if n := len(run["stalls_us"].([]any)); n != 1-i {
			t.Errorf("%d stalls", n)
		}
		delete(run, "stalls_us")
		delete(run, "ttr_curve")
		if d := cmp.Diff(m, run); d != "" {
			t.Error(d)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReportJSONOfRepetitions(t *testing.T) {
	text, err := json.Marshal(repeated())
	if err != nil {
		t.Fatal(err)
	}
	var got reportJSON
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	lazy := got.Methods[1]
	if lazy.Method != "lazy" || *lazy.Lazy != 1676 || len(lazy.Runs) != 3 ||
		*lazy.Runs[2].Lazy != 1677 {
		t.Errorf("%+v", lazy)
	}
	if s := lazy.Spread["lazy"]; len(s) != 2 || *s[0] != 1675 || *s[1] != 1677 {
		t.Errorf("%v", s)
	}
	if s := lazy.Spread["ttr_80_seconds"]; len(s) != 2 || s[0] == nil || s[1] != nil {
		t.Errorf("the lazy restore that was not seen: %v", s)
	}
	if p := lazy.Pace; p == nil || p.Units != "frames" || p.Recovery == nil || *p.Recovery < 20 {
		t.Errorf("%+v", p)
	}
	if s := got.Steady; s == nil || s.Mean != 30 || s.Windows == 0 {
		t.Errorf("%+v", s)
	}
	if n := len(lazy.Runs[1].Slices.Slices); n != 300 {
		t.Errorf("%d slices", n)
	}
	if got.Facts[0].Name != "disk" {
		t.Errorf("%v", got.Facts)
	}
}

func TestHumanSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 1670 * time.Microsecond: "1.67 ms", 31_700 * time.Microsecond: "0.0317 s",
		sec: "1 s", 1500 * ms: "1.5 s", 32 * sec: "32 s", 432 * sec: "432 s", 3600 * sec: "3600 s",
	} {
		if got := humanSeconds(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
