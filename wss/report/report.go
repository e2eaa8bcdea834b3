package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thawfs/thaw/wss"
)

// The window and the utilisation that a report states a TTR for if nothing else is said: VEE'11
// uses 1 s throughout, and 70 to 80 %.
const (
	DefaultTTRWindow      = time.Second
	DefaultTTRUtilisation = 0.8
)

// The window and the utilisation of the TTR that forgives little: a second that may be stalled for
// 200 ms hides what a user of a restored machine sees.
const (
	SharpTTRWindow      = 100 * time.Millisecond
	SharpTTRUtilisation = 0.95
)

// Report is a comparison of several restores of one checkpoint. The methods may have been run in any
// order; they are shown in that of the poster to VEE'11: eager, lazy, access, trace, then union, the
// raw ones, and all others as they come. Methods of one name are repetitions: tables show their
// medians, and under them the least and the greatest where they differ.
type Report struct {
	Title       string // of the page; empty: a general one
	GuestPages  uint64
	Methods     []Method
	Warm        *Method       // of the same machine with all of its memory in the page cache; nil: none
	Window      time.Duration // w of the TTR; 0: DefaultTTRWindow
	Utilisation float64       // u of the TTR; 0: DefaultTTRUtilisation
	Facts       []Fact        // of the run: disk, guest, what was dropped, …
}

// Fact is a line about how a comparison was made. A detail stands in the JSON and on the page, not
// under the printed table.
type Fact struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Detail bool   `json:"detail,omitempty"`
}

func (r Report) w() time.Duration {
	if r.Window <= 0 {
		return DefaultTTRWindow
	}
	return r.Window
}

func (r Report) u() float64 {
	if r.Utilisation <= 0 {
		return DefaultTTRUtilisation
	}
	return r.Utilisation
}

// us are the utilisations that tables show a TTR for, ascending: 70 and 80 %, as VEE'11 found them
// for SPECjbb and MPlayer, and the report's own.
func (r Report) us() []float64 {
	us := []float64{0.7, 0.8, r.u()}
	slices.Sort(us)
	return slices.Compact(us)
}

// ttr is one TTR that is stated.
type ttr struct {
	w      time.Duration
	u      float64
	key    string // in JSON, of the spread
	detail bool   // not in the printed table
}

// ttrs are those of the report's own window at us, then the sharp one.
func (r Report) ttrs() (all []ttr) {
	for _, u := range r.us() {
		all = append(all, ttr{r.w(), u, ttrKey(u), u != r.u()})
	}
	return append(all, sharpTTR())
}

func sharpTTR() ttr {
	return ttr{w: SharpTTRWindow, u: SharpTTRUtilisation, key: "ttr_100ms_95_seconds"}
}

func (t ttr) title() string { return fmt.Sprintf("TTR(%s, %.3g %%)", spanText(t.w), t.u*100) }

func (t ttr) of(m Method) outcome {
	x, ok := m.TTR(t.w, t.u)
	return outcome{x.Seconds(), ok}
}

func (r Report) paces(methods ...string) (paces []Pace) {
	for _, m := range r.Methods {
		if m.Pace != nil && (len(methods) == 0 || slices.Contains(methods, m.Name)) {
			paces = append(paces, *m.Pace)
		}
	}
	return paces
}

// steady is the pace that a guest must come back to, and where it comes from: that of the eager
// restores, which nothing disturbs after their start, or without these that of all runs in their last
// third.
func (r Report) steady() (s Steady, origin string, ok bool) {
	if eager := r.paces(MethodEager, MethodRawEager); len(eager) > 0 {
		if s, ok := SteadyOf(paceWindow(eager), 0, eager...); ok {
			return s, "of the eager restores", true
		}
	}
	paces := r.paces()
	if len(paces) == 0 {
		return Steady{}, "", false
	}
	tail := shortest(paces) / 3
	s, ok = SteadyOf(min(paceWindow(paces), tail), tail, paces...)
	return s, "of the last " + humanSeconds(tail) + " of all runs", ok
}

// paceWindow is a second, or less if the runs do not have some of them.
func paceWindow(paces []Pace) time.Duration {
	return min(PaceWindow, shortest(paces)/4)
}

func shortest(paces []Pace) time.Duration {
	ran := wss.MaxTime
	for _, p := range paces {
		ran = min(ran, p.Ran)
	}
	return ran
}

// column is a column of the table, and what a run has in it.
type column struct {
	key    string // in JSON, of the spread
	title  string
	value  func(Method) outcome
	format func(float64) string
	race   bool       // the lower the better
	in     tableOfRun // the printed table that has it
}

// tableOfRun is a table of the printed report.
type tableOfRun int

const (
	noTable    tableOfRun = iota // only the page and the JSON have it
	pagesTable                   // what was brought, and what was used of it
	timesTable                   // who waited, and for how long
)

// columns are those that this report has.
func (r Report) columns() []column {
	columns := append(pageColumns(), r.playoutColumns()...)
	columns = append(columns, column{"restore_seconds", "restore",
		func(m Method) outcome { return outcome{m.Ready.Seconds(), true} }, secondsText, false,
		timesTable})
	for _, t := range r.ttrs() {
		c := column{t.key, t.title(), t.of, secondsText, true, timesTable}
		if t.detail {
			c.in = noTable
		}
		columns = append(columns, c)
	}
	columns = append(columns,
		column{"longest_stall_seconds", "longest stall",
			func(m Method) outcome { return outcome{m.LongestStall().Seconds(), true} }, secondsText,
			true, timesTable},
		column{"total_stall_seconds", "total stall",
			func(m Method) outcome { return outcome{m.TotalStall().Seconds(), true} }, secondsText,
			true, timesTable})
	columns = append(columns, r.delayColumns()...)
	return append(columns, r.paceColumns()...)
}

// pageColumns are those of the poster to VEE'11, and what follows from them.
func pageColumns() []column {
	count := func(f func(Method) (uint64, bool)) func(Method) outcome {
		return func(m Method) outcome {
			n, no := f(m)
			return applicable(no, float64(n))
		}
	}
	return []column{
		{"prefetched", "prefetched",
			count(func(m Method) (uint64, bool) { return m.Prefetched, false }), pages, false, pagesTable},
		{"skipped", "skipped",
			count(func(m Method) (uint64, bool) { return m.Skipped, m.NoSkipped }), pages, false,
			pagesTable},
		{"lazy", "lazy", count(func(m Method) (uint64, bool) { return m.Lazy, m.NoLazy }), pages,
			false, pagesTable},
		{"recall", "recall",
			func(m Method) outcome { return applicable(m.NoSkipped, m.Recall()) }, percent, false,
			pagesTable},
		{"precision", "precision",
			func(m Method) outcome { return applicable(m.NoSkipped, m.Precision()) }, percent, false,
			pagesTable},
	}
}

// playoutColumns are those of sets that come while the guest runs, if a server told of one.
func (r Report) playoutColumns() []column {
	told := func(m Method) bool { return m.Playout != nil }
	if !slices.ContainsFunc(r.Methods, told) {
		return nil
	}
	of := func(f func(Playout) float64) func(Method) outcome {
		return func(m Method) outcome {
			if m.Playout == nil {
				return applicable(true, 0)
			}
			return outcome{f(*m.Playout), true}
		}
	}
	return []column{
		{"head_start_seconds", "head start", of(func(p Playout) float64 { return p.HeadStart }),
			secondsText, false, pagesTable},
		{"late_pages", "late pages", of(func(p Playout) float64 { return float64(p.LatePages) }), pages,
			true, pagesTable},
	}
}

// paceColumns are those of the application's own measure, if one was taken.
func (r Report) paceColumns() []column {
	if len(r.paces()) == 0 {
		return nil
	}
	of := func(f func(Method) outcome) func(Method) outcome {
		return func(m Method) outcome {
			if m.Pace == nil {
				return applicable(true, 0)
			}
			return f(m)
		}
	}
	var columns []column
	if steady, _, ok := r.steady(); ok {
		columns = append(columns, column{"recovery_seconds", "recovery",
			of(func(m Method) outcome {
				x, ok := m.Recovery(steady, PaceStretch)
				return outcome{x.Seconds(), ok}
			}), secondsText, true, timesTable})
	}
	return append(columns,
		column{"first_second", r.units() + " in 1st s",
			of(func(m Method) outcome { return outcome{m.Pace.Within(0, time.Second), true} }), number3,
			false, noTable},
		column{"per_second", r.units() + "/s",
			of(func(m Method) outcome { return outcome{m.Pace.PerSecond(), true} }), number3, false,
			noTable})
}

// spread is what the repetitions of a method have in a column.
func (c column) spread(g runs) spread {
	all := make([]outcome, len(g.all))
	for i, m := range g.all {
		all[i] = c.value(m)
	}
	return spreadOf(all)
}

// text prints an outcome of the column.
func (c column) text(o outcome) string {
	switch {
	case math.IsNaN(o.value):
		return "n/a"
	case !o.ok:
		return "> " + c.format(o.value)
	}
	return c.format(o.value)
}

// bounds prints the least and the greatest; nothing if there is no more to say than the median.
func (c column) bounds(s spread) (least, greatest string) {
	least, greatest = c.text(s.least), c.text(s.greatest)
	switch {
	case s.narrow() || s.n == 0 || least == greatest:
		return "", ""
	case !s.greatest.ok && s.least.ok:
		return least, "not seen"
	}
	return least, greatest
}

// span prints them in one, with their unit once.
func (c column) span(s spread) string {
	least, greatest := c.bounds(s)
	if least == "" {
		return ""
	}
	if n, unit, ok := strings.Cut(least, " "); ok && strings.HasSuffix(greatest, " "+unit) {
		least = n
	}
	return least + " to " + greatest
}

// applicable is NaN where the count says nothing of a method.
func applicable(not bool, f float64) outcome {
	if not {
		f = math.NaN()
	}
	return outcome{f, true}
}

func ttrKey(u float64) string {
	return "ttr_" + strconv.FormatFloat(u*100, 'f', -1, 64) + "_seconds"
}
