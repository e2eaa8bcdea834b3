package main

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

	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/wss"
)

// demoResults are three restores in the order in which the demo makes them.
func demoResults() []demoResult {
	var all []demoResult
	for i, m := range demoMethods() {
		counts := wss.Counts{Prefetched: uint64(100 * i), Skipped: 90, Lazy: 10, Window: 5 * time.Second}
		ready := time.Duration(i+1) * time.Second
		all = append(all, demoResult{
			row:      m.row,
			method:   wss.NewMethod(m.name, counts, ready, ready+counts.Window, nil),
			progress: demoProgress{Units: "transactions", Total: uint64(i)},
		})
	}
	return all
}

func TestDemoReport(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out, errs bytes.Buffer
		figure := filepath.Join(t.TempDir(), "f.svg")
		d := &demo{
			a: &app{stdout: &out, stderr: &errs, json: asJSON}, figure: figure,
			o: demoOptions{memory: 1 << 30, guest: "heap", window: 5 * time.Second},
		}
		if err := d.report(demoResults()); err != nil {
			t.Fatal(err)
		}
		if svg, err := os.ReadFile(figure); err != nil || !bytes.Contains(svg, []byte("<svg")) {
			t.Errorf("figure: %v", err)
		}
		if !asJSON {
			for _, want := range []string{"eager .* n/a +n/a", "in the 1st second", "figure: "} {
				if !regexp.MustCompile(want).MatchString(out.String()) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
			continue
		}
		checkDemoJSON(t, out.Bytes(), figure)
	}
}

func checkDemoJSON(t *testing.T, text []byte, figure string) {
	t.Helper()
	var v struct {
		GuestPages uint64 `json:"guest_pages"`
		Figure     string `json:"figure"`
		Methods    []struct {
			Method   string
			Skipped  *uint64
			Lazy     *uint64
			Restore  float64      `json:"restore_seconds"`
			TTR      *float64     `json:"ttr_seconds"`
			Progress demoProgress `json:"progress"`
		}
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, m := range v.Methods {
		names = append(names, m.Method)
		// What was measured i-th did i units and took i+1 seconds.
		at := slices.Index([]string{"lazy", "eager", "trace"}, m.Method)
		if m.Progress.Total != uint64(at) || m.Restore != float64(at+1) || m.TTR == nil {
			t.Errorf("methods[%d]: %+v", i, m)
		}
		noSkipped, noLazy := m.Method != "trace", m.Method == "eager"
		if (m.Skipped == nil) != noSkipped || (m.Lazy == nil) != noLazy {
			t.Errorf("%s: skipped %v, lazy %v", m.Method, m.Skipped, m.Lazy)
		}
	}
	if got := strings.Join(names, " "); got != "eager lazy trace" {
		t.Errorf("methods %s", got)
	}
	if v.GuestPages != 262144 || v.Figure != figure {
		t.Errorf("%d pages, %s", v.GuestPages, v.Figure)
	}
}

func TestProgressOf(t *testing.T) {
	p := vmm.Progress{Units: "frames", Total: 75, SliceSeconds: 0.1,
		Slices: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20}}
	got := progressOf(p, 5*time.Second)
	if want := (demoProgress{Units: "frames", FirstSecond: 55, Total: 75, PerSecond: 15}); got != want {
		t.Errorf("%+v", got)
	}
}
