package report

import (
	"math"
	"slices"
	"sort"
	"strconv"
	"time"
)

// The delay of the guest's own work is measured against a warm run: the same machine restored while
// all of its memory lay in the page cache. What a restore can do best is to be no later.

// WarmSpan is the part of a warm run that delays are measured in, from the guest's first instruction
// on: what comes later is less of the restore than of the guest.
const WarmSpan = time.Second

// Points are the amounts of work at which the delays of the methods are told: the greatest power of
// ten that the warm run did within WarmSpan, and a tenth of that if it is more than one unit and at
// least what a guest reports at once. None without a warm run, or if its work was not counted.
func (r Report) Points() (points []uint64) {
	if r.Warm == nil || r.Warm.Pace == nil {
		return nil
	}
	marks := r.Warm.Pace.Marks
	n := sort.Search(len(marks), func(i int) bool { return marks[i].At > WarmSpan })
	if n == 0 || marks[n-1].Units == 0 {
		return nil
	}
	most, least := uint64(1), marks[0].Units
	for most <= marks[n-1].Units/10 {
		most *= 10
	}
	if most < least {
		return []uint64{least}
	}
	if most/10 >= max(least, 2) {
		points = append(points, most/10)
	}
	return append(points, most)
}

// delay is how much later than in the warm run a method's guest had done so many units, both counted
// from when the restore was asked for.
func (r Report) delay(m Method, units uint64) outcome {
	if m.Pace == nil || len(m.Pace.Marks) == 0 {
		return applicable(true, 0)
	}
	warm, _ := r.Warm.Reached(units) // it is one of Points
	at, ok := m.Reached(units)
	return outcome{(at - warm).Seconds(), ok}
}

// delayColumns are those of Points.
func (r Report) delayColumns() (columns []column) {
	for _, n := range r.Points() {
		columns = append(columns, column{key: delayKey(n), title: "at " + comma(n) + " " + r.units(),
			value: func(m Method) outcome { return r.delay(m, n) }, format: lateText, race: true,
			in: timesTable})
	}
	return columns
}

func delayKey(n uint64) string { return "delay_" + strconv.FormatUint(n, 10) + "_seconds" }

// warmText says what the warm run did.
func (r Report) warmText() string {
	var done []string
	for _, n := range r.Points() {
		at, _ := r.Warm.Reached(n)
		done = append(done, comma(n)+" after "+humanSeconds(at))
	}
	if len(done) == 0 {
		return ""
	}
	return "It ran after " + humanSeconds(r.Warm.Ready) + " and had done " + sentenceList(done)
}

// workSpan is how long the work of the methods is drawn: until all that reached the last point had.
func (r Report) workSpan() (end time.Duration) {
	points := r.Points()
	if len(points) == 0 {
		return 0
	}
	last := slices.Max(points)
	for _, m := range append(slices.Clone(r.Methods), *r.Warm) {
		if at, ok := m.Reached(last); ok {
			end = max(end, at)
		}
	}
	return end
}

// lateText prints a delay with its sign. What is finer than a hundredth of a millisecond is noise.
func lateText(s float64) string {
	const fine = 1e5
	s = math.Round(s*fine) / fine
	if s < 0 {
		return "-" + secondsText(-s)
	}
	return "+" + secondsText(s)
}
