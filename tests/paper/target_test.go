package main

import (
	"slices"
	"testing"
	"time"
)

func TestQuotient(t *testing.T) {
	seen := func(s float64) span { return span{s, false} }
	above := func(s float64) span { return span{s, true} }
	for _, tc := range []struct {
		slow, fast span
		text       string
		verdict    verdict
	}{
		{seen(20), seen(1), "20", met},
		{seen(19.9), seen(1), "19.9", short},
		{above(30), seen(1), "> 30", met},
		{above(10), seen(1), "> 10", unknown},
		{seen(10), above(1), "< 10", short},
		{seen(30), above(1), "< 30", unknown},
		{above(30), above(1), "neither was seen", unknown},
		{seen(1), seen(0), "trace 0 s", met},
		{seen(0), seen(0), "both 0 s", unknown},
	} {
		if text, v := quotient(tc.slow, tc.fast, 20); text != tc.text || v != tc.verdict {
			t.Errorf("%v / %v: %q, %s; want %q, %s", tc.slow, tc.fast, text, v, tc.text, tc.verdict)
		}
	}
}

// made is a restore with these figures.
func made(name string, recall, ttr80 float64) method {
	return method{Method: name, Recall: &recall, Precision: &recall,
		TTRs: []ttr{{Window: 1, U: 0.7, TTR: new(float64)}, {Window: 1, U: 0.8, TTR: &ttr80},
			{Window: 0.1, U: 0.95, TTR: &ttr80}}}
}

func TestNoLater(t *testing.T) {
	for _, tc := range []struct {
		ours, theirs span
		want         verdict
	}{
		{span{1, false}, span{1, false}, met}, {span{1, false}, span{2, false}, met},
		{span{2, false}, span{1, false}, short}, {span{1, false}, span{2, true}, met},
		{span{2, false}, span{1, true}, unknown}, {span{1, true}, span{2, false}, unknown},
		{span{2, true}, span{1, false}, short}, {span{1, true}, span{2, true}, unknown},
	} {
		if got := tc.ours.noLater(tc.theirs); got != tc.want {
			t.Errorf("%v against %v: %s, want %s", tc.ours, tc.theirs, got, tc.want)
		}
	}
}

// TestNoLaterTargets: trace is asked to be no later than lazy and eager by every measure.
func TestNoLaterTargets(t *testing.T) {
	sec := func(f float64) *float64 { return &f }
	restore := func(name string, ready, ttr, longest, total, late float64) method {
		m := made(name, 1, ttr)
		m.Restore, m.Longest, m.Stalled = ready, longest, total
		m.Delays = []delay{{Units: 1000, Delay: sec(late)}}
		return m
	}
	var o outcome
	o.comparison.Warm = &warmRun{Units: "transactions"}
	o.comparison.Warm.Done = append(o.comparison.Warm.Done, struct {
		Units   uint64  `json:"units"`
		Seconds float64 `json:"seconds"`
	}{1000, 0.1})
	o.comparison.Methods = []method{restore("eager", 2, 2, 0, 0, 1.9), restore("lazy", 0.1, 1.5, 0.02, 0.5, 0.6),
		restore("trace", 0.12, 0.12, 0.03, 0.04, -0.001)}
	check(t, o.noLater(), []target{
		{"TTR(1 s, 80 %) of trace, against lazy", "no later", "0.12 against 1.5", met},
		{"TTR(100 ms, 95 %) of trace, against lazy", "no later", "0.12 against 1.5", met},
		{"longest stall of trace, against lazy", "no later", "0.03 against 0.02", short},
		{"total stall of trace, against lazy", "no later", "0.04 against 0.5", met},
		{"at 1,000 transactions of trace, against lazy", "no later", "-0.001 against 0.6", met},
		{"TTR(1 s, 80 %) of trace, against eager", "no later", "0.12 against 2", met},
		{"TTR(100 ms, 95 %) of trace, against eager", "no later", "0.12 against 2", met},
		{"first instruction and total stall of trace, against eager", "no later", "0.16 against 2", met},
		{"at 1,000 transactions of trace, against eager", "no later", "-0.001 against 1.9", met},
	})
	o.comparison.Methods = o.comparison.Methods[1:]
	for _, got := range o.noLater()[5:] {
		if got.verdict != unknown || got.found != "not measured" {
			t.Errorf("%+v", got)
		}
	}
}

func TestTargets(t *testing.T) {
	o := outcome{job: job{workload: workload{name: "heap"}, disk: "hdd"}}
	o.comparison.Methods = []method{made("access", 0.97, 1), made("trace", 0.999, 1),
		made("raw-eager", 1, 10), made("raw-lazy", 1, 4)}
	o.comparison.Checkpoint.Scan = &scanning{Share: 0.009, Budget: 0.01}
	o.comparison.Checkpoint.Trace = &tracing{Pages: 1000, Seconds: 2, KernelSeconds: 0.024}
	o.comparison.KernelBefore = 0.01
	want := []target{
		{"heap on hdd: recall of trace", ">= 99.5 %", "99.9 %", met},
		{"heap on hdd: recall of access", ">= 98 %", "97 %", short},
		{"heap on hdd: precision of trace", ">= 95 %", "99.9 %", met},
		{"heap on hdd: precision of access", ">= 95 %", "97 %", met},
		{"heap on hdd: TTR(1 s, 80 %) of raw-eager over that of trace", ">= 8", "10", met},
		{"heap on hdd: TTR(1 s, 80 %) of raw-lazy over that of trace", ">= 5", "4", short},
		{"heap on hdd: share of scanning", "<= 1 %", "0.9 %", met},
		{"heap on hdd: a traced first touch, in minor faults", "<= 3", "4", short},
	}
	check(t, paperOnly(o.targets(time.Microsecond)), want)

	o.disk = "native"
	got := paperOnly(o.targets(time.Microsecond))
	check(t, got[4:6], []target{
		{"heap on native: TTR(1 s, 80 %) of raw-eager over that of trace", ">= 1", "10", met},
		{"heap on native: TTR(1 s, 80 %) of raw-lazy over that of trace", ">= 1", "4", met},
	})
	// What was not measured is not met.
	o.comparison.Methods = o.comparison.Methods[:1]
	for _, i := range []int{0, 2, 4, 5} {
		if got := o.targets(time.Microsecond)[i]; got.verdict != unknown || got.found != "not measured" {
			t.Errorf("%+v", got)
		}
	}
	// Only the costs of the estimates have targets where the paper has no figures of a set.
	o.workload.name = "random:20"
	if got := o.targets(time.Microsecond); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

// paperOnly leaves out the targets of TestNoLaterTargets.
func paperOnly(all []target) []target {
	return slices.DeleteFunc(all, func(t target) bool { return t.asked == "no later" })
}

func check(t *testing.T, got, want []target) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d targets, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v\nwant %+v", got[i], want[i])
		}
	}
}
