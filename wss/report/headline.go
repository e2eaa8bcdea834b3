package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// WriteSentences writes Headline and, where there is one, Gain, each behind an empty line.
func (r Report) WriteSentences(w io.Writer) error {
	var b strings.Builder
	for _, sentence := range []string{r.Headline(), r.Gain()} {
		if sentence != "" {
			b.WriteString("\n" + strings.Join(wrapped("", sentence), "\n") + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Headline is the result in a sentence: which method was responsive first by the sharp TTR, and how
// much sooner than the others. It has the figures of the table, as the table prints them; methods that
// the table cannot tell apart are not told apart here.
func (r Report) Headline() string {
	t := sharpTTR()
	s := r.standing(column{value: t.of, format: secondsText})
	switch {
	case len(s) == 0:
		return "Nothing was compared."
	case !s[0].ok:
		return fmt.Sprintf("By %s none of the machines became responsive while it was watched.",
			t.title())
	}
	first, others := s.winners()
	after := fmt.Sprintf("after %s by %s", s[0].text, t.title())
	switch {
	case len(s) == 1:
		return fmt.Sprintf("Restored by %s, the machine was responsive %s.", s[0].name, after)
	case len(others) == 0:
		return fmt.Sprintf("By all of %s the machine was responsive %s.", sentenceList(first), after)
	}
	var against []string
	for _, p := range others {
		against = append(against, sooner(s[0], p))
	}
	return fmt.Sprintf("Restored by %s, the machine was responsive first, %s: %s.",
		strings.Join(first, " or "), after, sentenceList(against))
}

// Gain is what a restore was worth to the guest, in a sentence: by which method its own work was done
// first, and by how much the others were later, all against a warm run as the table has it. Empty
// where the work was not counted.
func (r Report) Gain() string {
	columns := r.delayColumns()
	if len(columns) == 0 {
		return ""
	}
	points := r.Points()
	s := r.standing(columns[len(columns)-1])
	if len(s) == 0 || !s[0].ok {
		return ""
	}
	first, others := s.winners()
	work := fmt.Sprintf("the guest's first %s %s were done", comma(points[len(points)-1]), r.units())
	head := fmt.Sprintf("Restored by %s, %s %s than with all of its memory in the page cache",
		strings.Join(first, " or "), work, s[0].against())
	if len(others) == 0 {
		return head + "."
	}
	var rest []string
	for _, p := range others {
		rest = append(rest, fmt.Sprintf("by %s %s", p.name, p.against()))
	}
	return head + "; " + sentenceList(rest) + "."
}

// standing is how the methods stand in a column, the best first.
type standing []place

// place is a method's median in a column.
type place struct {
	name string
	outcome
	text string // as the table prints it
}

// standing leaves out the methods that the column does not apply to.
func (r Report) standing(c column) (s standing) {
	for _, g := range r.methods() {
		median := c.spread(g).median
		if !math.IsNaN(median.value) {
			s = append(s, place{g.name, median, c.text(median)})
		}
	}
	slices.SortStableFunc(s, func(a, b place) int { return a.compare(b.outcome) })
	return s
}

// winners are the names of those that print as the best does, and the others.
func (s standing) winners() (names []string, others standing) {
	n := 0
	for n < len(s) && s[n].text == s[0].text {
		names = append(names, s[n].name)
		n++
	}
	return names, s[n:]
}

// against is a delay in words: "0.01 s later".
func (p place) against() string {
	switch {
	case !p.ok:
		return "more than " + strings.TrimLeft(p.text, "> +") + " later"
	case strings.HasPrefix(p.text, "-"):
		return p.text[1:] + " sooner"
	}
	return strings.TrimPrefix(p.text, "+") + " later"
}

// sooner is "16 times sooner than eager (32 s)".
func sooner(best, p place) string {
	switch {
	case !p.ok:
		return fmt.Sprintf("sooner than %s (%s)", p.name, p.text)
	case best.value <= 0:
		return fmt.Sprintf("sooner than %s (%s)", p.name, p.text)
	}
	return fmt.Sprintf("%s sooner than %s (%s)", times(p.value/best.value), p.name, p.text)
}

func times(factor float64) string {
	switch {
	case factor < 1.0095:
		return fmt.Sprintf("%.1f %%", (factor-1)*100)
	case factor < 1.095:
		return fmt.Sprintf("%.0f %%", (factor-1)*100)
	case factor < 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", factor), ".0") + " times"
	}
	return fmt.Sprintf("%.0f times", factor)
}

// sentenceList is "a, b and c".
func sentenceList(parts []string) string {
	last := len(parts) - 1
	if last < 1 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:last], ", ") + " and " + parts[last]
}
