package report

import (
	"fmt"
	"image/color"
	"strconv"
	"time"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// maxBins keeps the bars of a figure wide enough to be seen.
const maxBins = 400

// axes is the scale that all panels share: time from min to max, both multiples of step, on a clock
// whose 0 is the guest's first instruction.
type axes struct {
	min, max, step time.Duration
	observed       time.Duration // longest observation after time 0; max may leave its quiet end out
}

// quiet is the share of a step that is too little to be seen.
const quiet = 0.002

// axes makes the scale on which everything that happened has room. A long quiet end is left out.
func (r Report) axes() axes {
	var before, busy time.Duration
	a := axes{step: 100 * time.Millisecond}
	for _, m := range r.Methods {
		before, a.observed = max(before, m.Ready), max(a.observed, m.End-m.Ready)
		busy = max(busy, r.busy(m))
	}
	length := max(min(busy+busy/4+time.Second, a.observed), 2*time.Second)
	for _, step := range []time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour} {
		if (before+length)/a.step > maxBins {
			a.step = step
		}
	}
	// One more step on the left, so that the first bar does not lean on the axis.
	a.min = -((before+a.step-1)/a.step + 1) * a.step
	a.max = (length + a.step - 1) / a.step * a.step
	return a
}

// busy is how long after its first instruction something is seen of a method.
func (r Report) busy(m Method) (end time.Duration) {
	if ttr, ok := m.TTR(r.w(), r.u()); ok {
		end = ttr - m.Ready
	}
	const step = 100 * time.Millisecond
	stalls := after(m)
	for _, s := range stalls.Intervals() {
		from := s.Start / step * step
		if float64(stalls.Stalled(from, from+step)) > quiet*float64(step) || s.End > from+step {
			end = max(end, s.End)
		}
	}
	return end
}

// label is what stands under the time axis.
func (a axes) label() string {
	text := "seconds since the guest's first instruction"
	if a.observed > a.max {
		text += fmt.Sprintf(" (observed for %s, quiet from here on)",
			humanSeconds(a.observed))
	}
	return text
}

// stepName is "100 ms", "second", "10 s".
func (a axes) stepName() string {
	switch {
	case a.step < time.Second:
		return strconv.FormatInt(a.step.Milliseconds(), 10) + " ms"
	case a.step == time.Second:
		return "second"
	default:
		return strconv.FormatInt(int64(a.step/time.Second), 10) + " s"
	}
}

func (a axes) x(c draw.Canvas, t time.Duration) vg.Length {
	return c.X(float64(t-a.min) / float64(a.max-a.min))
}

// tickStep is the distance of the labelled ticks: 1, 2 or 5 times a power of ten of seconds, at
// most 14 of them.
func (a axes) tickStep() time.Duration {
	for unit := 100 * time.Millisecond; ; unit *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			if (a.max-a.min)/(n*unit) <= 14 {
				return n * unit
			}
		}
	}
}

// drawGrid draws the scales: page is the panel with room for labels, data the inside of the axes.
func (a axes) drawGrid(page, data draw.Canvas) {
	line := draw.LineStyle{Color: gridColor, Width: 0.7}
	label := style(10, softColor, false)
	label.XAlign, label.YAlign = draw.XRight, draw.YCenter
	for _, y := range []float64{0, 0.5, 1} {
		data.StrokeLine2(line, data.Min.X, data.Y(y), data.Max.X, data.Y(y))
		page.FillText(label, vg.Point{X: data.Min.X - 6, Y: data.Y(y)},
			strconv.Itoa(int(y*100))+" %")
	}
	label.XAlign, label.YAlign = draw.XCenter, draw.YTop
	step := a.tickStep()
	for t := a.min / step * step; t <= a.max; t += step {
		x := a.x(data, t)
		data.StrokeLine2(line, x, data.Min.Y, x, data.Max.Y)
		page.FillText(label, vg.Point{X: x, Y: data.Min.Y - 4},
			strconv.FormatFloat(t.Seconds(), 'g', 4, 64))
	}
	base := draw.LineStyle{Color: softColor, Width: 0.8}
	data.StrokeLine2(base, data.Min.X, data.Min.Y, data.Max.X, data.Min.Y)
}

// drawStart marks the guest's first instruction.
func (a axes) drawStart(c draw.Canvas) {
	x := a.x(c, 0)
	c.StrokeLine2(draw.LineStyle{Color: inkColor, Width: 1.1}, x, c.Min.Y, x, c.Max.Y)
}

// drawBars fills the histogram of a timeline: one outline for each unbroken row of bars.
func (a axes) drawBars(c draw.Canvas, fill color.Color, t *Timeline) {
	var outline []vg.Point
	flush := func(at time.Duration) {
		if len(outline) > 0 {
			outline = append(outline, vg.Point{X: a.x(c, at), Y: c.Min.Y})
			c.FillPolygon(fill, outline)
			outline = nil
		}
	}
	at := a.min
	for _, f := range t.Fractions(a.min, a.max, a.step) {
		switch {
		case f == 0:
			flush(at)
		default:
			if len(outline) == 0 {
				outline = append(outline, vg.Point{X: a.x(c, at), Y: c.Min.Y})
			}
			outline = append(outline, vg.Point{X: a.x(c, at), Y: c.Y(f)},
				vg.Point{X: a.x(c, at+a.step), Y: c.Y(f)})
		}
		at += a.step
	}
	flush(a.max)
}
