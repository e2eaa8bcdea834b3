package main

import (
	"os"
	"testing"
)

// sample is a comparison as thaw printed it: a machine of 64 MiB, by lazy, access and trace.
func sample(t *testing.T, name string) comparison {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseComparison(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseComparison(t *testing.T) {
	for _, name := range []string{"stream", "heap"} {
		c := sample(t, name)
		if c.GuestPages != 16384 || len(c.Methods) != 3 || c.Disk != "native" {
			t.Errorf("%s: %d pages, %d methods, on %q", name, c.GuestPages, len(c.Methods), c.Disk)
		}
		if s := c.Checkpoint.Scan; s == nil || s.Pages == 0 || s.Share <= 0 || s.Budget != 0.01 {
			t.Errorf("%s: scan %+v", name, s)
		}
		trace := c.Checkpoint.Trace
		if trace == nil {
			t.Fatalf("%s: no trace", name)
		}
		// The player's touches are too few to be seen in ticks of 10 ms.
		if cost, ok := c.perTouch(); !ok || cost <= 0 && name == "heap" {
			t.Errorf("%s: %+v costs %g", name, *trace, cost)
		}
		for _, m := range c.Methods {
			_, has := m.ttr(0.8)
			if _, paced := m.back(); !has || !paced || m.Lazy == nil {
				t.Errorf("%s: %s without its figures: %+v", name, m.Method, m)
			}
			// A machine is back no earlier than it runs, and where nothing is missing not much later.
			if back, _ := m.back(); back.seconds < m.Restore ||
				*m.Lazy == 0 && back.seconds > m.Restore+c.Window {
				t.Errorf("%s: %s ran after %g s and was back after %v", name, m.Method, m.Restore, back)
			}
			// The measures that the paper does not have.
			if _, ok := m.sharp(); !ok || m.Longest > m.Stalled || len(c.points()) == 0 {
				t.Errorf("%s: %s without its stalls: %+v", name, m.Method, m)
			}
			for _, n := range c.points() {
				if late, ok := m.late(n); !ok || late.seconds == 0 {
					t.Errorf("%s: %s at %d: %v %v", name, m.Method, n, late, ok)
				}
			}
			if waited, _ := m.waited(); waited.seconds < m.Restore {
				t.Errorf("%s: %s waited %v", name, m.Method, waited)
			}
			if (m.Prefetched > 0) != (m.Method != "lazy") {
				t.Errorf("%s: %s prefetched %d", name, m.Method, m.Prefetched)
			}
		}
	}
}

func TestParseComparisonRefuses(t *testing.T) {
	for _, bad := range []string{"", "{}", "[]", `{"guest_pages": 5}`,
		`{"guest_pages": 5, "ttr_window_seconds": 2, "methods": [{"method": "lazy"}]}`} {
		if c, err := parseComparison([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

func TestSpans(t *testing.T) {
	two := 2.0
	m := method{Restore: 1, Stalled: 0.5, TTRs: []ttr{{Window: 1, U: 0.8, Above: &two},
		{Window: 0.1, U: 0.95, TTR: &two}}, Delays: []delay{{Units: 10, Above: &two}},
		Pace: &pace{Recovery: &two}}
	if s, ok := m.sharp(); !ok || s != (span{2, false}) {
		t.Errorf("the sharp TTR %v, %v", s, ok)
	}
	if s, ok := m.late(10); !ok || s != (span{2, true}) {
		t.Errorf("late %v, %v", s, ok)
	}
	if s, ok := m.late(100); ok {
		t.Errorf("a delay that is not there: %v", s)
	}
	if s, _ := m.waited(); s != (span{1.5, false}) {
		t.Errorf("waited %v", s)
	}
	if s, ok := m.ttr(0.8); !ok || s != (span{2, true}) {
		t.Errorf("TTR %v, %v", s, ok)
	}
	if s, ok := m.ttr(0.7); ok {
		t.Errorf("a TTR that is not there: %v", s)
	}
	if s, ok := m.back(); !ok || s != (span{2, false}) {
		t.Errorf("back %v, %v", s, ok)
	}
	m.Pace = nil
	if s, ok := m.back(); ok {
		t.Errorf("a pace that is not there: %v", s)
	}
}
