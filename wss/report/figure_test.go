package report

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/plot"

	"github.com/thawfs/thaw/wss"
)

// checkSVG parses a figure as XML and returns the texts in it.
func checkSVG(t *testing.T, svg []byte) (texts string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		if chars, ok := token.(xml.CharData); ok {
			texts += string(chars) + "\n"
		}
	}
}

func TestFigure(t *testing.T) {
	var svg bytes.Buffer
	if err := poster().WriteFigure(&svg); err != nil {
		t.Fatal(err)
	}
	texts := checkSVG(t, svg.Bytes())
	for _, want := range []string{
		"Time spent fetching memory, per second",
		"eager", "starts after 32 s", "responsive after 32 s", "262,144 pages prefetched",
		"lazy", "1,675 lazy", "access", "trace", "11,295 pages prefetched",
		"seconds since the guest's first instruction", "fetching (%)", "100", "-20", "20",
	} {
		if !strings.Contains(texts, want) {
			t.Errorf("the figure does not say %q", want)
		}
	}
	if n := svg.Len(); n > 200<<10 {
		t.Errorf("the figure has %d bytes", n)
	}
}

// TestAxesHaveUnits: a figure says what its axes count, and in what.
func TestAxesHaveUnits(t *testing.T) {
	r := repeated()
	for _, c := range []struct {
		write func(io.Writer) error
		want  []string
	}{
		{r.WriteFigure, []string{"fetching (%)", "seconds since the guest's first instruction"}},
		{r.WriteCurves, []string{"TTR(1 s, u) (s)", "u: the share of every window that is left to the guest (%)"}},
		{r.WritePaces, []string{"frames a second", "seconds since the restore was asked for (a point is a " +
			"window of 0.5 s)", "steady state"}},
	} {
		var out bytes.Buffer
		if err := c.write(&out); err != nil {
			t.Fatal(err)
		}
		texts := checkSVG(t, out.Bytes())
		for _, want := range append(c.want, "eager", "lazy", "access", "trace") {
			if !strings.Contains(texts, want) {
				t.Errorf("a figure does not say %q: %s", want, texts)
			}
		}
	}
}

// TestLabelled: every tick has a label that can be read.
func TestLabelled(t *testing.T) {
	for _, c := range []struct {
		from, to float64
		want     string
	}{
		{-0.6, 3.3, "-0.4 -0.2 0 0.2"}, {-33, 30, "-30 -20 -10 0 10 20 30"}, {0, 100, "0 10 20"},
		{0, 1e6, "0 100000"},
	} {
		ticks := labelled(c.from, c.to)
		slices.SortFunc(ticks, func(a, b plot.Tick) int { return cmp.Compare(a.Value, b.Value) })
		var got []string
		for _, tick := range ticks {
			got = append(got, tick.Label)
		}
		if text := strings.Join(got, " "); !strings.Contains(text, c.want) || len(got) > 21 {
			t.Errorf("%v to %v: %s", c.from, c.to, text)
		}
	}
}

func TestFigureScales(t *testing.T) {
	method := func(ready, end time.Duration, stalls []wss.Interval) Report {
		return Report{Methods: []Method{NewMethod("trace", wss.Counts{}, ready, end, stalls)}}
	}
	for _, c := range []struct {
		name   string
		report Report
		want   bars
	}{
		{"nothing", Report{}, bars{-100 * ms, 2 * sec, 100 * ms, 0}},
		{"short and quiet", method(550*ms, 10*sec, nil), bars{-700 * ms, 2 * sec, 100 * ms, 9450 * ms}},
		{"busy to the end", method(100*ms, 10100*ms, in(0, 10_100)),
			bars{-200 * ms, 10 * sec, 100 * ms, 10 * sec}},
		{"long", method(70*sec, 100*sec, in(70_000, 95_000)), bars{-71 * sec, 30 * sec, sec, 30 * sec}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.report.bars(); got != c.want {
				t.Errorf("bars %+v, want %+v", got, c.want)
			}
			var out bytes.Buffer
			if err := c.report.WriteFigure(&out); err != nil {
				t.Fatal(err)
			}
			checkSVG(t, out.Bytes())
		})
	}
}
