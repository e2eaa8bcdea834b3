package wss

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHeatAgainstPages(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 0))
	for range 200 {
		s := randomSet(rng, 1+rng.Uint64N(3000))
		times, bins := 1+rng.IntN(70), 1+rng.IntN(40)
		h := s.Heat(times, bins)
		if h.Times != times || h.Bins != int(min(uint64(bins), s.ImagePages)) {
			t.Fatalf("%d x %d of %d x %d", h.Times, h.Bins, times, bins)
		}
		want := make([][]float64, len(h.Sources))
		for i := range want {
			want[i] = make([]float64, h.Times*h.Bins)
		}
		for _, r := range s.Runs {
			for gfn := r.GFN; gfn < r.End(); gfn++ {
				bin := 0
				for h.edge(bin+1) <= gfn {
					bin++
				}
				at := min(int(float64(r.At)/float64(h.Window)*float64(times)), times-1)
				want[slices.Index(h.Sources, r.Source)][bin*times+at] +=
					1 / float64(h.edge(bin+1)-h.edge(bin))
			}
		}
		for i, cells := range h.Cells {
			for j, share := range cells {
				if math.Abs(share-want[i][j]) > 1e-9 {
					t.Fatalf("source %d, cell %d: %v, want %v", i, j, share, want[i][j])
				}
			}
		}
	}
}

func TestHeatEdges(t *testing.T) {
	for _, s := range []*Set{
		{ImagePages: 1},
		{ImagePages: 3, Runs: []Run{run(0, 3)}},
		{ImagePages: MaxImagePages, Runs: []Run{run(0, MaxImagePages)}},
		{ImagePages: MaxImagePages - 1, Runs: []Run{run(MaxImagePages-2, 1)}},
		{ImagePages: 100, Window: MaxTime,
			Runs: []Run{{GFN: 1, Count: 1, At: MaxTime, Source: "x", VCPU: NoVCPU}}},
	} {
		h := s.Heat(64, 16)
		if rows := h.Rows(); len(rows) != int(min(16, s.ImagePages)) || len([]rune(rows[0])) != 64 {
			t.Errorf("%d rows of %d", len(rows), len(rows[0]))
		}
		if len(s.Runs) > 0 && h.top() <= 0 {
			t.Errorf("nothing is seen of %v", s.Runs)
		}
		var out bytes.Buffer
		if err := s.WriteHeat(&out); err != nil {
			t.Fatal(err)
		}
		if checkSVG(t, out.Bytes()); strings.Contains(out.String(), "NaN") {
			t.Errorf("%v: a figure draws what is no number", s.Runs)
		}
	}
}

func TestHeatFigure(t *testing.T) {
	s := &Set{ImagePages: 262_144, Window: 10 * sec, Runs: []Run{
		{0, 4096, 0, SourceAccess, NoVCPU}, {200_000, 64, 5 * sec, SourceTrace, 0},
	}}
	path := filepath.Join(t.TempDir(), "heat.svg")
	if err := s.HeatFigure(path); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	texts := checkSVG(t, svg)
	for _, want := range []string{"access", "trace", "1.0 GiB", "256 MiB", "10"} {
		if !strings.Contains(texts, want) {
			t.Errorf("the figure does not say %q", want)
		}
	}
}

func ExampleSet_Heat() {
	s := &Set{ImagePages: 64, Window: 8 * time.Second, Runs: []Run{
		{0, 16, 0, SourceTrace, 0}, {16, 1, time.Second, SourceTrace, 0},
		{40, 4, 4 * time.Second, SourceTrace, 1}, {63, 1, 7 * time.Second, SourceTrace, 1},
	}}
	for _, row := range s.Heat(8, 4).Rows() {
		fmt.Println("|" + row + "|")
	}
	// Output:
	// |       ░|
	// |    ▒   |
	// | ░      |
	// |█       |
}

func TestMatrix(t *testing.T) {
	s := &Set{ImagePages: 100, Runs: []Run{
		{0, 10, 0, SourceAccess, NoVCPU}, {5, 15, 0, SourceTrace, 0},
	}}
	var out bytes.Buffer
	if err := s.SourceMatrix().WriteText(&out); err != nil {
		t.Fatal(err)
	}
	want := `         access    trace  pages
access  100.0 %   25.0 %     10
trace    25.0 %  100.0 %     15
`
	if out.String() != want {
		t.Errorf("\n%s", out.String())
	}
	rng := rand.New(rand.NewPCG(12, 0))
	sets := []*Set{randomSet(rng, 200), randomSet(rng, 200), {ImagePages: 200}}
	m := NewMatrix([]string{"a", "b", "none"}, sets)
	for i, a := range sets {
		for j, b := range sets {
			if got, want := m.Overlaps[i][j], a.Overlap(b); got != want {
				t.Errorf("%d, %d: %v, want %v", i, j, got, want)
			}
		}
	}
	if got := m.Rows()[3][3]; got != "n/a" {
		t.Errorf("two empty sets have %s in common", got)
	}
}
