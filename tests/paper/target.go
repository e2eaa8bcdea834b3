package main

import (
	"fmt"
	"slices"
	"time"
)

// verdict is whether a target is met.
type verdict string

const (
	met     verdict = "met"
	short   verdict = "short"
	unknown verdict = "unknown" // what was seen does not decide it
)

// target is one that was set, and what was found.
type target struct {
	what  string
	asked string
	found string
	verdict
}

// The targets.
const (
	traceRecall, accessRecall = 0.995, 0.98
	leastPrecision            = 0.95
	overRawLazy               = 5 // TTR of raw-lazy on hdd, in those of trace
	minorFaults               = 3 // cost of a traced first touch, in minor faults
	targetU                   = 0.8
)

// overRawEager are, by workload, the TTR of raw-eager on hdd in those of trace.
var overRawEager = map[string]float64{"stream": 20, "heap": 8}

// targets are those that a job's restores are measured by.
func (o outcome) targets(fault time.Duration) (all []target) {
	add := func(t target) {
		t.what = fmt.Sprintf("%s on %s: %s", o.workload.name, o.disk, t.what)
		all = append(all, t)
	}
	// Idle and random machines have no target of their own in the paper's figures.
	if least, ok := overRawEager[o.workload.name]; ok {
		add(o.share("recall of trace", "trace", traceRecall, recall))
		add(o.share("recall of access", "access", accessRecall, recall))
		add(o.share("precision of trace", "trace", leastPrecision, precision))
		add(o.share("precision of access", "access", leastPrecision, precision))
		if o.disk == "native" {
			add(o.ratio("raw-eager", 1))
			add(o.ratio("raw-lazy", 1))
		} else {
			add(o.ratio("raw-eager", least))
			add(o.ratio("raw-lazy", overRawLazy))
		}
		for _, t := range o.noLater() {
			add(t)
		}
	}
	if s := o.comparison.Checkpoint.Scan; s != nil {
		add(target{"share of scanning", "<= " + percent(s.Budget), percent(s.Share),
			decide(s.Share <= s.Budget)})
	}
	if cost, ok := o.comparison.perTouch(); ok && fault > 0 {
		n := cost / fault.Seconds()
		add(target{"a traced first touch, in minor faults", fmt.Sprintf("<= %d", minorFaults),
			number(n), decide(n <= minorFaults)})
	}
	return all
}

func decide(ok bool) verdict {
	if ok {
		return met
	}
	return short
}

func recall(m method) *float64    { return m.Recall }
func precision(m method) *float64 { return m.Precision }

// share is a target for a recall or a precision.
func (o outcome) share(what, name string, least float64, of func(method) *float64) target {
	t := target{what, ">= " + percent(least), "not measured", unknown}
	if m, ok := o.comparison.find(name); ok && of(m) != nil {
		t.found, t.verdict = percent(*of(m)), decide(*of(m) >= least)
	}
	return t
}

// ratio is a target for the TTR of another method in those of trace.
func (o outcome) ratio(other string, least float64) target {
	t := target{fmt.Sprintf("TTR(1 s, 80 %%) of %s over that of trace", other),
		fmt.Sprintf(">= %g", least), "not measured", unknown}
	slow, fast, ok := o.pair(other, func(m method) (span, bool) { return m.ttr(targetU) })
	if ok {
		t.found, t.verdict = quotient(slow, fast, least)
	}
	return t
}

// noLater are the targets that trace is no later than lazy and eager, by every measure: the TTRs, the
// delays of the guest's work, and the stalls. An eager restore has its wait before the guest's first
// instruction, so against it the stalls count with that.
func (o outcome) noLater() (all []target) {
	measures := []measure{
		{"TTR(1 s, 80 %)", func(m method) (span, bool) { return m.ttr(targetU) }, nil},
		{"TTR(100 ms, 95 %)", method.sharp, nil},
		{"longest stall", func(m method) (span, bool) { return span{m.Longest, false}, true },
			[]string{"lazy"}},
		{"total stall", func(m method) (span, bool) { return span{m.Stalled, false}, true },
			[]string{"lazy"}},
		{"first instruction and total stall", method.waited, []string{"eager"}},
	}
	for _, n := range o.comparison.points() {
		measures = append(measures, measure{"at " + count(n) + " " + o.comparison.Warm.Units,
			func(m method) (span, bool) { return m.late(n) }, nil})
	}
	for _, other := range []string{"lazy", "eager"} {
		for _, m := range measures {
			if m.only == nil || slices.Contains(m.only, other) {
				all = append(all, o.noLaterThan(other, m))
			}
		}
	}
	return all
}

// measure is one by which trace is to be no later than other methods.
type measure struct {
	name string
	of   func(method) (span, bool)
	only []string // the methods that it is for; nil: both
}

// noLaterThan is that target for one measure and one method.
func (o outcome) noLaterThan(other string, by measure) target {
	t := target{fmt.Sprintf("%s of trace, against %s", by.name, other), "no later", "not measured",
		unknown}
	if theirs, ours, ok := o.pair(other, by.of); ok {
		t.found = fmt.Sprintf("%s against %s", spanned(ours, true), spanned(theirs, true))
		t.verdict = ours.noLater(theirs)
	}
	return t
}

// pair is what another method and trace have by a measure; not ok: one of them was not measured.
func (o outcome) pair(other string, of func(method) (span, bool)) (theirs, ours span, ok bool) {
	m, ok := o.comparison.find(other)
	trace, there := o.comparison.find("trace")
	if !ok || !there {
		return theirs, ours, false
	}
	theirs, ok = of(m)
	ours, there = of(trace)
	return theirs, ours, ok && there
}

// noLater compares two times of which one may only be a bound; of two bounds nothing follows.
func (s span) noLater(than span) verdict {
	switch {
	case s.above && than.above:
		return unknown
	case s.above && s.seconds < than.seconds, than.above && s.seconds > than.seconds:
		return unknown
	}
	return decide(s.seconds <= than.seconds)
}

// quotient divides two times. Where one of them is only a bound so is the quotient, which decides
// the target or does not; of two bounds nothing follows.
func quotient(slow, fast span, least float64) (string, verdict) {
	if slow.above && fast.above {
		return "neither was seen", unknown
	}
	if fast.seconds <= 0 {
		if slow.seconds <= 0 {
			return "both 0 s", unknown
		}
		return "trace 0 s", met
	}
	q := slow.seconds / fast.seconds
	text := number(q)
	switch {
	case slow.above && q >= least:
		return "> " + text, met
	case slow.above:
		return "> " + text, unknown
	case fast.above && q < least:
		return "< " + text, short
	case fast.above:
		return "< " + text, unknown
	}
	return text, decide(q >= least)
}
