package wss

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// poster is the poster's machine (262,144 pages) restored four times, with stalls that look like
// its figures: eager reads for 70 s, lazy crawls for 25 s, the working-set restores hardly stall.
func poster() Report {
	const pages = 262_144
	end := 30 * time.Second
	window := 10 * time.Second
	eager := NewMethod("eager", Counts{Prefetched: pages, Window: window},
		32*time.Second, 32*time.Second+end, nil)
	lazy := NewMethod("lazy", Counts{Lazy: 1675, Window: window},
		100*ms, 100*ms+end, crawl(100*ms, 25*sec, 0.93))
	access := NewMethod("access", Counts{11_181, 11_181, 75, window},
		1900*ms, 1900*ms+end, crawl(1900*ms, 4*sec, 0.3))
	trace := NewMethod("trace", Counts{11_295, 11_293, 11, window},
		1920*ms, 1920*ms+end, crawl(1920*ms, 2*sec, 0.05))
	// Lazy was run first: the trace came of it.
	return Report{GuestPages: pages, Methods: []Method{lazy, eager, access, trace}}
}

// crawl makes disk reads of about 10 ms that take up a share of the time from start on.
func crawl(start, length time.Duration, share float64) []Interval {
	rng := rand.New(rand.NewPCG(1, uint64(length)))
	var in []Interval
	for at := start; at < start+length; {
		read := time.Duration((8 + 4*rng.Float64()) * float64(time.Millisecond))
		in = append(in, Interval{at, at + read})
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
method  prefetched  skipped   lazy  restore  TTR(1 s, 80 %)  recall  precision
eager      262,144      n/a    n/a     32 s            32 s     n/a        n/a
lazy             0      n/a  1,675    0.1 s          24.9 s     n/a        n/a
access      11,181   11,181     75    1.9 s         > 1.9 s  99.3 %    100.0 %
trace       11,295   11,293     11   1.92 s          1.92 s  99.9 %    100.0 %
pages of 4 KiB; skipped and lazy are counted over the first 10 s of the guest
`
	if d := cmp.Diff(want, "\n"+out.String()); d != "" {
		t.Error(d)
	}
}

func TestTableOfNothing(t *testing.T) {
	var out bytes.Buffer
	if err := Table(&out, nil); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%v: %q", err, out.String())
	}
}

func TestReportJSON(t *testing.T) {
	r := poster()
	r.Methods = r.ordered()[1:3]
	r.Methods[0].Stalls = []Interval{{100 * ms, 600 * ms}}
	r.Methods[1].End = r.Methods[1].Ready + 500*ms
	r.Methods[1].Stalls = nil
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
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
   "recall": null,
   "precision": null,
   "window_seconds": 10,
   "observed_seconds": 30.1,
   "stall_seconds": 0.5
  },
  {
   "method": "access",
   "prefetched": 11181,
   "skipped": 11181,
   "lazy": 75,
   "restore_seconds": 1.9,
   "ttr_seconds": null,
   "ttr_above_seconds": 1.9,
   "recall": 0.9933368869936035,
   "precision": 1,
   "window_seconds": 10,
   "observed_seconds": 2.4,
   "stall_seconds": 0
  }
 ]
}`
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
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
