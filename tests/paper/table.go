package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// none is a figure that there is not.
const none = "–"

// tables are all of them, in Markdown. In each cell is what was found and, where the paper tells
// it, the published figure in parentheses.
func tables(outcomes []outcome, fault time.Duration) string {
	var b strings.Builder
	b.WriteString("In parentheses: as published (VEE 2011; its times of a working-set restore stand " +
		"at trace, those of a plain image at the raw methods). Pages of 4 KiB; all times in " +
		"seconds from the request on, stalls from the first instruction on, and \"at N\" how much " +
		"later than in a warm run the guest had done its first N units.\n")
	if slices.ContainsFunc(outcomes, func(o outcome) bool { return o.memory != full().memory }) {
		b.WriteString("\nA trial: the machines and their sets are far smaller than the paper's.\n")
	}
	for _, o := range outcomes {
		b.WriteString("\n" + o.heading() + "\n\n")
		b.WriteString(markdown(o.restores()) + "\n" + markdown(o.times()))
		b.WriteString(o.warm())
		if len(o.losses) > 0 {
			b.WriteString("\nFigure 8, a part of the traced set lost at random:\n\n")
			b.WriteString(markdown(o.sensitivity()))
		}
		if note := published(o.workload.name).note; note != "" {
			b.WriteString("\nPublished: " + note + ".\n")
		}
	}
	b.WriteString("\n### Cost of the estimates\n\n" + markdown(costs(outcomes, fault)))
	fmt.Fprintf(&b, "\nA plain minor fault of this host: %.3g us. Published: a scan of 4,096 pages "+
		"a second took less than 1/5 %% of the guest's time; traces were triggered 30.9 %% more "+
		"often in SPECjbb, 76.8 %% in MPlayer.\n", 1e6*fault.Seconds())
	b.WriteString("\n### Targets\n\n" + markdown(goals(outcomes, fault)))
	return b.String()
}

func (o outcome) heading() string {
	return fmt.Sprintf("### %s on %s (%s)\n\n%s, window %v", o.workload.name, o.disk,
		published(o.workload.name).name, o.comparison.Guest, o.window)
}

// warm is a line on the warm run.
func (o outcome) warm() string {
	w := o.comparison.Warm
	if w == nil {
		return ""
	}
	text := fmt.Sprintf("\nWarm, with all of its memory in the page cache, it ran after %s s and had done",
		seconds(w.Restore))
	for i, d := range w.Done {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(" %s %s after %s s", count(d.Units), w.Units, seconds(d.Seconds))
	}
	return text + ".\n"
}

// restores is the table of what was brought, and used.
func (o outcome) restores() [][]string {
	p := published(o.workload.name)
	rows := [][]string{{"method", "prefetched", "hits", "on demand", "recall", "precision",
		"head start", "late pages"}}
	for _, m := range o.comparison.Methods {
		of := p.methods[m.Method]
		rows = append(rows, []string{m.Method,
			beside(humanize.Comma(int64(m.Prefetched)), count(of.prefetched)),
			beside(pages(m.Skipped), count(of.hits)), beside(pages(m.Lazy), count(of.lazy)),
			beside(share(m.Recall), points(of.recall)),
			beside(share(m.Precision), points(of.precision)),
			spanned(spanOf(m.HeadStart, nil)), pages(m.LatePages)})
	}
	return rows
}

// times is the table of who waited, and for how long.
func (o outcome) times() [][]string {
	p := published(o.workload.name)
	head, cells := o.measures()
	rows := [][]string{append(append([]string{"method", "first instruction", "TTR 70 %", "TTR 80 %"},
		head...), "back")}
	for _, m := range o.comparison.Methods {
		of := p.methods[m.Method]
		at := map[float64]float64{p.u: of.ttr}
		row := []string{m.Method, seconds(m.Restore),
			beside(spanned(m.ttr(0.7)), publishedTime(at[0.7])),
			beside(spanned(m.ttr(0.8)), publishedTime(at[0.8]))}
		row = append(row, cells(m)...)
		rows = append(rows, append(row, beside(spanned(m.back()), publishedTime(of.back))))
	}
	return rows
}

// measures are the columns that the paper does not have: the TTR that forgives little, the stalls,
// and the delays of the guest's own work against the warm run.
func (o outcome) measures() (head []string, cells func(method) []string) {
	head = []string{"TTR(100 ms, 95 %)", "longest stall", "total stall"}
	points := o.comparison.points()
	for _, n := range points {
		head = append(head, "at "+count(n)+" "+o.comparison.Warm.Units)
	}
	return head, func(m method) []string {
		row := []string{spanned(m.sharp()), seconds(m.Longest), seconds(m.Stalled)}
		for _, n := range points {
			row = append(row, signed(m.late(n)))
		}
		return row
	}
}

// sensitivity is figure 8: what a loss of some percent does, between the whole set and none of it.
func (o outcome) sensitivity() [][]string {
	head, cells := o.measures()
	rows := [][]string{append(append([]string{"lost", "prefetched", "on demand", "late pages",
		"TTR 70 %", "TTR 80 %"}, head...), "back")}
	row := func(name string, m method) {
		row := append([]string{name, humanize.Comma(int64(m.Prefetched)), pages(m.Lazy),
			pages(m.LatePages), spanned(m.ttr(0.7)), spanned(m.ttr(0.8))}, cells(m)...)
		rows = append(rows, append(row, spanned(m.back())))
	}
	if m, ok := o.comparison.find("trace"); ok {
		row("0 %", m)
	}
	for _, l := range o.losses {
		row(fmt.Sprintf("%g %%", l.percent), l.method)
	}
	if m, ok := o.comparison.find("lazy"); ok {
		row("all (lazy)", m)
	}
	return rows
}

// costs are those of the estimates.
func costs(outcomes []outcome, fault time.Duration) [][]string {
	rows := [][]string{{"workload", "disk", "scanned", "sweeps", "share of the guest's time",
		"traced", "kernel, us per first touch", "in minor faults", "share of the window"}}
	for _, o := range outcomes {
		row := []string{o.workload.name, o.disk, none, none, none, none, none, none, none}
		if s := o.comparison.Checkpoint.Scan; s != nil {
			row[2], row[3] = count(s.Pages), fmt.Sprint(s.Sweeps)
			row[4] = percent(s.Share)
		}
		if t := o.comparison.Checkpoint.Trace; t != nil {
			row[5] = count(t.Pages)
			if cost, ok := o.comparison.perTouch(); ok {
				row[6] = number(1e6 * cost)
				if fault > 0 {
					row[7] = number(cost / fault.Seconds())
				}
			}
			if cost, ok := o.comparison.inKernel(); ok && t.Seconds > 0 {
				row[8] = percent(cost / t.Seconds)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// goals are the targets and whether they were met.
func goals(outcomes []outcome, fault time.Duration) [][]string {
	rows := [][]string{{"target", "asked", "found", ""}}
	for _, o := range outcomes {
		for _, t := range o.targets(fault) {
			rows = append(rows, []string{t.what, t.asked, t.found, string(t.verdict)})
		}
	}
	return rows
}

// markdown is a table whose first row is its head: the first column to the left, the others to the
// right.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---" + strings.Repeat("|--:", len(row)-1) + "|\n")
		}
	}
	return b.String()
}

// beside puts a published figure beside what was found.
func beside(found, published string) string {
	if published == none {
		return found
	}
	return found + " (" + published + ")"
}

func count(n uint64) string {
	if n == 0 {
		return none
	}
	return humanize.Comma(int64(n))
}

func pages(n *uint64) string {
	if n == nil {
		return none
	}
	return humanize.Comma(int64(*n))
}

func percent(f float64) string { return fmt.Sprintf("%.4g %%", 100*f) }

func share(f *float64) string {
	if f == nil {
		return none
	}
	return fmt.Sprintf("%.1f %%", 100**f)
}

// points is a published share, which is in percent.
func points(f float64) string {
	if f == 0 {
		return none
	}
	return fmt.Sprintf("%g %%", f)
}

func seconds(f float64) string { return number(f) }

// number prints the three digits that matter, more if there are more before the point.
func number(f float64) string {
	if math.Abs(f) >= 100 {
		return humanize.Comma(int64(math.Round(f)))
	}
	return fmt.Sprintf("%.3g", f)
}

// publishedTime is a published time; zero is none.
func publishedTime(f float64) string {
	if f == 0 {
		return none
	}
	return fmt.Sprintf("%g", f)
}

// signed is a delay.
func signed(s span, ok bool) string {
	text := spanned(s, ok)
	if !ok || s.above || s.seconds < 0 {
		return text
	}
	return "+" + text
}

func spanned(s span, ok bool) string {
	switch {
	case !ok:
		return none
	case s.above:
		return "> " + seconds(s.seconds)
	}
	return seconds(s.seconds)
}
