package report

import (
	"fmt"
	"math"
	"strings"
)

// Headline is the result in a sentence or two: when the machine was usable that was restored by a
// working set, and how much sooner that was than with the restores that know none.
func (r Report) Headline() string {
	column := r.ttrColumn()
	ttr := map[string]outcome{}
	best := ""
	for _, g := range r.methods() {
		ttr[g.name] = column.spread(g).median
		if !baseline(g.name) && (best == "" || ttr[g.name].compare(ttr[best]) < 0) {
			best = g.name
		}
	}
	if best == "" {
		return r.headlineWithout(ttr)
	}
	if !ttr[best].ok {
		return fmt.Sprintf("Restored by its working set (%s), the machine was not seen to become "+
			"responsive within %s.", best, secondsText(ttr[best].value))
	}
	var against []string
	for _, name := range []string{MethodEager, MethodLazy, MethodRawEager, MethodRawLazy} {
		if o, ok := ttr[name]; ok {
			against = append(against, versus(ttr[best], name, o))
		}
	}
	head := fmt.Sprintf("Restored by its working set (%s), the machine was responsive after %s", best,
		secondsText(ttr[best].value))
	if len(against) == 0 {
		return head + "."
	}
	return head + ": " + sentenceList(against) + "."
}

// headlineWithout is the headline of a comparison without working sets.
func (r Report) headlineWithout(ttr map[string]outcome) string {
	var parts []string
	for _, g := range r.methods() {
		text := "not seen to be"
		if o := ttr[g.name]; o.ok {
			text = "after " + secondsText(o.value)
		}
		parts = append(parts, g.name+" "+text)
	}
	if len(parts) == 0 {
		return "Nothing was compared."
	}
	return "Responsive: " + sentenceList(parts) + "."
}

// ttrColumn is that of the report's own utilisation.
func (r Report) ttrColumn() column {
	for _, c := range r.columns() {
		if c.key == ttrKey(r.u()) {
			return c
		}
	}
	return column{}
}

// baseline says whether a method knows no working set.
func baseline(name string) bool {
	switch name {
	case MethodEager, MethodLazy, MethodRawEager, MethodRawLazy:
		return true
	}
	return false
}

// versus is "16 times sooner than eager (32 s)".
func versus(a outcome, name string, b outcome) string {
	than := fmt.Sprintf("%s (%s)", name, secondsText(b.value))
	switch {
	case !b.ok:
		return fmt.Sprintf("sooner than %s, which was not seen to be within %s", name,
			secondsText(b.value))
	case a.value == b.value:
		return "as soon as " + than
	case a.value < b.value:
		return times(b.value/a.value) + " sooner than " + than
	}
	return times(a.value/b.value) + " later than " + than
}

func times(factor float64) string {
	switch {
	case math.IsInf(factor, 0):
		return "beyond measure"
	case factor < 1.095:
		return fmt.Sprintf("%.0f %%", (factor-1)*100)
	case factor < 10:
		return fmt.Sprintf("%.1f times", factor)
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
