package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// digest are the tables of README.md: what stands there is what a run found, without copying by hand.
func digest(outcomes []outcome) string {
	var b strings.Builder
	for _, rows := range [][][]string{brought(outcomes), waited(outcomes), others(outcomes),
		lost(outcomes)} {
		if len(rows) > 1 {
			b.WriteString(markdown(rows) + "\n")
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// judged are the workloads that the paper has figures of.
func judged(o outcome) bool {
	_, ok := overRawEager[o.workload.name]
	return ok
}

func (j job) label() string { return j.workload.name + ", " + j.disk }

// brought is what came before and after the start, for the workloads that the paper has figures of.
func brought(outcomes []outcome) [][]string {
	head := []string{"prefetched", "on demand", "recall", "precision", "head start", "late pages"}
	return eachMethod(outcomes, head, func(_ outcome, m method, of figures) []string {
		return []string{beside(humanize.Comma(int64(m.Prefetched)), count(of.prefetched)),
			beside(pages(m.Lazy), count(of.lazy)), beside(share(m.Recall), points(of.recall)),
			beside(share(m.Precision), points(of.precision)), spanned(spanOf(m.HeadStart, nil)),
			pages(m.LatePages)}
	})
}

// eachMethod is a table with a row for each method of those workloads, beside what was published.
func eachMethod(outcomes []outcome, head []string,
	cells func(outcome, method, figures) []string) [][]string {
	rows := [][]string{append([]string{"machine, disk", "method"}, head...)}
	for _, o := range outcomes {
		if !judged(o) {
			continue
		}
		for _, m := range o.comparison.Methods {
			of := published(o.workload.name).methods[m.Method]
			rows = append(rows, append([]string{o.label(), m.Method}, cells(o, m, of)...))
		}
	}
	return rows
}

// waited is who waited for how long, for the same workloads. The delay is that at the most work.
func waited(outcomes []outcome) [][]string {
	head := []string{"TTR(1 s, 80 %)", "TTR(100 ms, 95 %)", "longest stall", "total stall",
		"first work", "at its pace"}
	return eachMethod(outcomes, head, func(o outcome, m method, of figures) []string {
		return []string{beside(spanned(m.ttr(targetU)), publishedTime(of.ttr)), spanned(m.sharp()),
			seconds(m.Longest), seconds(m.Stalled), o.comparison.work(m),
			beside(spanned(m.back()), publishedTime(of.back))}
	})
}

// work is a method's delay at the most work that the warm run did in its first second.
func (c comparison) work(m method) string {
	points := c.points()
	if len(points) == 0 {
		return none
	}
	most := points[len(points)-1]
	return fmt.Sprintf("%s at %s", signed(m.late(most)), count(most))
}

// others has only a TTR for each of the other workloads and disks.
func others(outcomes []outcome) [][]string {
	methods := full().methods
	rows := [][]string{append([]string{"TTR(1 s, 80 %) in seconds"}, methods...)}
	for _, o := range outcomes {
		if judged(o) {
			continue
		}
		row := []string{o.label()}
		for _, name := range methods {
			m, _ := o.comparison.find(name)
			row = append(row, spanned(m.ttr(targetU)))
		}
		rows = append(rows, row)
	}
	return rows
}

// lost is figure 8, by each measure and on each disk.
func lost(outcomes []outcome) [][]string {
	var rows [][]string
	for _, o := range outcomes {
		trace, ok := o.comparison.find("trace")
		if len(o.losses) == 0 || !ok {
			continue
		}
		losses := append([]loss{{0, trace}}, slices.Clone(o.losses)...)
		if rows == nil {
			head := []string{"lost of the set of `" + o.workload.name + "`"}
			for _, l := range losses {
				head = append(head, fmt.Sprintf("%g %%", l.percent))
			}
			rows = append(rows, head)
		}
		for _, measure := range []struct {
			name string
			of   func(method) string
		}{
			{"TTR(1 s, 80 %)", func(m method) string { return spanned(m.ttr(targetU)) }},
			{"TTR(100 ms, 95 %)", func(m method) string { return spanned(m.sharp()) }},
			{"longest stall", func(m method) string { return seconds(m.Longest) }},
			{"total stall", func(m method) string { return seconds(m.Stalled) }},
			{"first work", o.comparison.work},
		} {
			row := []string{measure.name + " on " + o.disk}
			for _, l := range losses {
				row = append(row, measure.of(l.method))
			}
			rows = append(rows, row)
		}
	}
	return rows
}
