package lab

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

func TestFindMethods(t *testing.T) {
	found, err := findMethods([]string{"trace", "eager", "raw-lazy"})
	var names []string
	for _, m := range found {
		names = append(names, m.name)
	}
	if err != nil || strings.Join(names, " ") != "eager trace raw-lazy" {
		t.Errorf("%v, %v", names, err)
	}
	for _, bad := range [][]string{nil, {"eager", "fast"}} {
		if _, err := findMethods(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// TestPlan: every repetition has each method once, in an order that the seed decides.
func TestPlan(t *testing.T) {
	ms, err := findMethods(MethodNames())
	if err != nil {
		t.Fatal(err)
	}
	const repeat = 20
	all := plan(ms, repeat, 7)
	if len(all) != repeat*len(ms) || !slices.Equal(all, plan(ms, repeat, 7)) {
		t.Fatalf("%d restores, not the same twice", len(all))
	}
	orders := make(map[string]bool)
	for round := range slices.Chunk(all, len(ms)) {
		var names []string
		for _, m := range round {
			names = append(names, m.name)
		}
		orders[strings.Join(names, " ")] = true
		slices.Sort(names)
		if want := slices.Sorted(slices.Values(MethodNames())); !slices.Equal(names, want) {
			t.Fatalf("a round of %v", names)
		}
	}
	if len(orders) < repeat/2 {
		t.Errorf("%d orders in %d rounds", len(orders), repeat)
	}
}

func TestSetOf(t *testing.T) {
	record := &wss.Set{ImagePages: 100, Runs: []wss.Run{
		{GFN: 1, Count: 2, Source: wss.SourceTrace, VCPU: 0},
		{GFN: 50, Count: 3, Source: wss.SourceAccess, VCPU: wss.NoVCPU},
	}}
	for name, want := range map[string]uint64{"access": 3, "trace": 2, "union": 5} {
		ms, err := findMethods([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		set, err := ms[0].setOf(record)
		if err != nil || set.Pages() != want {
			t.Errorf("%s: %v, %v", name, set, err)
		}
	}
	ms, _ := findMethods([]string{"trace"})
	if set, err := ms[0].setOf(record.Only(wss.SourceAccess)); err == nil {
		t.Errorf("a set of nothing: %v", set)
	}
}

func TestNewRefuses(t *testing.T) {
	good := func() Options {
		return Options{Methods: []string{"lazy"}, Repeat: 1, Disk: "native", Window: time.Second,
			Guest: Guest{Program: "idle", Memory: 1 << 30}}
	}
	if _, err := New(Program{}, good()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"method": func(o *Options) { o.Methods = []string{"none"} },
		"window": func(o *Options) { o.Window = time.Millisecond },
		"warm":   func(o *Options) { o.Guest.Warm = -1 },
		"repeat": func(o *Options) { o.Repeat = 0 },
		"drop":   func(o *Options) { o.Drop = 101 },
		"disk":   func(o *Options) { o.Disk = "tape" },
		"trace":  func(o *Options) { o.Methods = []string{"trace"} },
	} {
		o := good()
		change(&o)
		if _, err := New(Program{}, o); err == nil {
			t.Errorf("%s: no error", name)
		} else if code, _, _ := exitcode.Of(err); code != exitcode.Usage {
			t.Errorf("%s: %v, %v", name, code.Name(), err)
		}
	}
}

// compared is a comparison of made-up restores, two of each method.
func compared(o Options) *Comparison {
	c := &Comparison{o: o, warm: outcome{method: report.NewMethod("warm", wss.Counts{}, 50*time.Millisecond,
		2*time.Second, nil)}}
	marks := []report.Mark{{Units: 10, At: 30 * time.Millisecond}}
	c.warm.method.Pace = &report.Pace{Units: "transactions", Marks: marks, Ran: time.Second}
	for i, name := range []string{"lazy", "eager", "trace", "access", "eager", "lazy", "trace", "access"} {
		counts := wss.Counts{Prefetched: uint64(100 * i), Skipped: 90, Lazy: 10, Window: 5 * time.Second}
		ready := time.Duration(i+1) * time.Second
		m := report.NewMethod(name, counts, ready, ready+counts.Window,
			[]wss.Interval{{Start: ready, End: ready + 10*time.Millisecond}})
		p := report.NewPace("transactions", 0.1, []uint64{1, 5, 5, 5, 5, 5, 5, 5, 5, 5}, counts.Window)
		p.Marks = marks
		m.Pace = &p
		c.outcomes = append(c.outcomes, outcome{pages: 262144, method: m,
			vcpus: []wss.Interval{{Start: ready, End: ready + 11*time.Millisecond}}})
	}
	return c
}

func TestResult(t *testing.T) {
	dir := t.TempDir()
	o := Options{Guest: Guest{Program: "heap", Args: []string{"set=8MiB"}, Memory: 1 << 30}, Repeat: 2,
		Disk: "hdd", Window: 5 * time.Second,
		Figure: filepath.Join(dir, "f.svg"), HTML: filepath.Join(dir, "f.html")}
	r, err := compared(o).result()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"eager", "lazy", "access", "trace", "figure: ", "report: ", "hdd",
		"heap set=8MiB with 1.0 GiB", "at N transactions", "+2.95 s", "TTR(100 ms,"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	// It ends with what was found, and no line reads as if something had failed.
	if end := "\n" + strings.Join(strings.Fields(r.report.Gain()), " "); !strings.HasSuffix(
		strings.ReplaceAll(strings.TrimSpace(out.String()), "\n", " "), strings.TrimSpace(end)) {
		t.Errorf("the end is not %q:\n%s", end, out.String())
	}
	if bad := regexp.MustCompile(`(?i)beyond|error|fail|warning`).FindString(out.String()); bad != "" {
		t.Errorf("nothing failed, but it says %q:\n%s", bad, out.String())
	}
	for path, want := range map[string]string{o.Figure: "<svg", o.HTML: "by vCPU against by request"} {
		if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte(want)) {
			t.Errorf("%s: %v", path, err)
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		GuestPages uint64 `json:"guest_pages"`
		Disk       string
		Figure     string
		Methods    []struct {
			Method  string
			Skipped *uint64
			Lazy    *uint64
		}
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range v.Methods {
		if names = append(names, m.Method); (m.Lazy == nil) != (m.Method == "eager") {
			t.Errorf("%s: lazy %v", m.Method, m.Lazy)
		}
	}
	if got := strings.Join(names, " "); got != "eager lazy access trace" || v.GuestPages != 262144 ||
		v.Disk != "hdd" || v.Figure != o.Figure {
		t.Errorf("%s; %+v", got, v)
	}
}

// TestDropPages: what is dropped is missing from the sets of all methods and from the layout, which
// knows only those.
func TestDropPages(t *testing.T) {
	record := &wss.Set{ImagePages: 1000, Runs: []wss.Run{
		{GFN: 0, Count: 200, Source: wss.SourceAccess}, {GFN: 100, Count: 200, Source: wss.SourceTrace},
	}}
	for _, tc := range []struct {
		methods string
		drop    float64
		pages   uint64 // that are left; 0: the checkpoint as it is
	}{
		{"trace", 0, 0}, {"trace", 10, 180}, {"access,trace", 10, 270}, {"lazy,union", 50, 150},
		{"lazy", 10, 0}, {"trace", 99, 2},
	} {
		ms, err := findMethods(strings.Split(tc.methods, ","))
		if err != nil {
			t.Fatal(err)
		}
		c := &Comparison{testbed: testbed{dir: t.TempDir(), checkpoint: t.TempDir()}, methods: ms,
			record: record, o: Options{Drop: tc.drop, Seed: 1}}
		dir, err := c.dropPages()
		if err != nil {
			t.Fatal(err)
		}
		if tc.pages == 0 {
			if dir != c.checkpoint || c.record != record {
				t.Errorf("%+v: %s, %d pages", tc, dir, c.record.Pages())
			}
			continue
		}
		set, err := readRecord(dir)
		if err != nil {
			t.Fatal(err)
		}
		if set.Pages() != tc.pages || c.record.Pages() != tc.pages {
			t.Errorf("%+v: %d pages in the directory, %d in the record", tc, set.Pages(), c.record.Pages())
		}
	}
}
