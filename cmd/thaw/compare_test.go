package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	ms, err := findMethods(methodNames())
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
		if want := slices.Sorted(slices.Values(methodNames())); !slices.Equal(names, want) {
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

func TestCompareRefuses(t *testing.T) {
	good := func() compareOptions {
		return compareOptions{methods: []string{"lazy"}, repeat: 1, disk: diskFlag{"native"},
			window: time.Second, guest: labGuest{program: "idle", memory: 1 << 30}}
	}
	for name, change := range map[string]func(*compareOptions){
		"method": func(o *compareOptions) { o.methods = []string{"none"} },
		"window": func(o *compareOptions) { o.window = time.Millisecond },
		"repeat": func(o *compareOptions) { o.repeat = 0 },
		"drop":   func(o *compareOptions) { o.drop = 101 },
		"disk":   func(o *compareOptions) { o.disk.name = "tape" },
		"guest":  func(o *compareOptions) { o.guest.program = "none" },
		"memory": func(o *compareOptions) { o.guest.memory = 5 },
		"trace":  func(o *compareOptions) { o.methods = []string{"trace"} },
		"arg":    func(o *compareOptions) { o.guest.args = []string{"seed"} },
	} {
		o := good()
		change(&o)
		_, err := o.check()
		if code, _ := classify(err); err == nil || code.Name() != "usage" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// compared is a comparison of made-up restores, two of each method.
func compared(a *app, o compareOptions) *comparison {
	c := &comparison{lab: &lab{a: a, start: time.Now()}, o: o}
	for i, name := range []string{"lazy", "eager", "trace", "access", "eager", "lazy", "trace", "access"} {
		counts := wss.Counts{Prefetched: uint64(100 * i), Skipped: 90, Lazy: 10, Window: 5 * time.Second}
		ready := time.Duration(i+1) * time.Second
		m := report.NewMethod(name, counts, ready, ready+counts.Window,
			[]wss.Interval{{Start: ready, End: ready + 10*time.Millisecond}})
		p := report.NewPace("transactions", 0.1, []uint64{1, 5, 5, 5, 5, 5, 5, 5, 5, 5}, counts.Window)
		m.Pace = &p
		c.results = append(c.results, labResult{pages: 262144, method: m,
			vcpus: []wss.Interval{{Start: ready, End: ready + 11*time.Millisecond}}})
	}
	return c
}

func TestCompareReport(t *testing.T) {
	dir := t.TempDir()
	o := compareOptions{guest: labGuest{program: "heap", memory: 1 << 30}, repeat: 2,
		disk: diskFlag{"hdd"}, window: 5 * time.Second,
		figure: filepath.Join(dir, "f.svg"), html: filepath.Join(dir, "f.html")}
	var out, errs bytes.Buffer
	if err := compared(&app{stdout: &out, stderr: &errs}, o).report(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"eager", "lazy", "access", "trace", "figure: ", "report: ", "hdd",
		"by vCPU against by request"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for path, want := range map[string]string{o.figure: "<svg", o.html: "<html"} {
		if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte(want)) {
			t.Errorf("%s: %v", path, err)
		}
	}
	out.Reset()
	if err := compared(&app{stdout: &out, stderr: &errs, json: true}, o).report(); err != nil {
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
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range v.Methods {
		if names = append(names, m.Method); (m.Lazy == nil) != (m.Method == "eager") {
			t.Errorf("%s: lazy %v", m.Method, m.Lazy)
		}
	}
	if got := strings.Join(names, " "); got != "eager lazy access trace" || v.GuestPages != 262144 ||
		v.Disk != "hdd" || v.Figure != o.figure {
		t.Errorf("%s; %+v", got, v)
	}
}

// TestCompareLoses: what is lost is lost to the sets of all methods and to the layout, which knows
// only what they do.
func TestCompareLoses(t *testing.T) {
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
		l := &lab{dir: t.TempDir(), checkpoint: t.TempDir()}
		c := &comparison{lab: l, methods: ms, record: record, o: compareOptions{drop: tc.drop, seed: 1}}
		dir, err := c.lose()
		if err != nil {
			t.Fatal(err)
		}
		if tc.pages == 0 {
			if dir != l.checkpoint || c.record != record {
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
