package report

import (
	"fmt"
	"io"
	"time"

	"gonum.org/v1/plot/plotter"
)

// WritePaces writes the rates at which the guests worked, over the time since the restore was asked
// for, as SVG: all methods in one plot, of several repetitions the one whose TTR is the median.
func (r Report) WritePaces(w io.Writer) error {
	end, window := r.paceScale()
	p := newPlot("The guest's own work", fmt.Sprintf(
		"seconds since the restore was asked for (a point is a window of %s)", humanSeconds(window)),
		r.units()+" a second")
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, end.Seconds(), 0, 1
	if s, _, ok := r.steady(); ok {
		steady := band{max(s.Mean-s.Deviation, 0), s.Mean + s.Deviation, gridColor}
		p.Add(steady)
		p.Legend.Add("steady state", steady)
	}
	for i, g := range r.methods() {
		if m := r.typical(g); m.Pace != nil {
			line := &plotter.Line{XYs: m.rates(end, window), LineStyle: methodLine(g.name, i)}
			p.Add(line)
			p.Legend.Add(g.name, line)
		}
	}
	p.Y.Max *= 1.05
	svg, page := newFigure(figureHeight)
	drawBeside(page, p)
	return writeSVG(w, svg)
}

// paceScale is up to which time paces are drawn, and in windows of which length: until all methods
// have recovered, and some time more. The quiet end is left out.
func (r Report) paceScale() (end, window time.Duration) {
	s, _, known := r.steady()
	var ran time.Duration
	for _, g := range r.methods() {
		m := r.typical(g)
		if m.Pace == nil {
			continue
		}
		ran = max(ran, m.Ready+m.Pace.Ran)
		x, seen := m.Recovery(s, PaceStretch)
		if !known || !seen {
			x = m.Ready + m.Pace.Ran
		}
		end = max(end, x)
	}
	end = max(min(end+end/4+PaceStretch, ran), time.Millisecond)
	for window = 250 * time.Millisecond; end/window > maxBars/4; {
		window *= 2
	}
	return end, window
}

// rates are those of windows of the pace, each in its middle, from nothing at the first instruction.
func (m Method) rates(end, window time.Duration) plotter.XYs {
	line := plotter.XYs{{X: m.Ready.Seconds()}}
	for at := time.Duration(0); at+window <= m.Pace.Ran && m.Ready+at+window/2 <= end; at += window {
		line = append(line, plotter.XY{X: (m.Ready + at + window/2).Seconds(),
			Y: m.Pace.Within(at, at+window) / window.Seconds()})
	}
	return line
}
