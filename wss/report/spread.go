package report

import (
	"cmp"
	"math"
	"slices"
)

// outcome is a number that a run gave; not ok: it is more than that, which is all that was seen.
type outcome struct {
	value float64
	ok    bool
}

// compare puts what was not seen last.
func (o outcome) compare(p outcome) int {
	if o.ok != p.ok {
		if o.ok {
			return -1
		}
		return 1
	}
	return cmp.Compare(o.value, p.value)
}

// spread is what the repetitions of a method gave.
type spread struct {
	median, least, greatest outcome
	n                       int
}

// spreadOf leaves out what is NaN: it was not applicable. The median of an even number is the mean
// of the middle two, and was not seen if one of them was not.
func spreadOf(all []outcome) spread {
	sorted := slices.DeleteFunc(slices.Clone(all), func(o outcome) bool { return math.IsNaN(o.value) })
	n := len(sorted)
	if n == 0 {
		none := outcome{math.NaN(), true}
		return spread{none, none, none, 0}
	}
	slices.SortFunc(sorted, outcome.compare)
	median := sorted[n/2]
	if before := sorted[(n-1)/2]; before.ok == median.ok {
		median.value = (before.value + median.value) / 2
	}
	return spread{median, sorted[0], sorted[n-1], n}
}

// narrow says whether there is no more to say than the median.
func (s spread) narrow() bool { return s.least == s.greatest }
