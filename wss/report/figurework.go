package report

import (
	"fmt"
	"io"
	"time"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"
)

// warmName is how a figure names the warm run.
const warmName = "warm"

// WriteWork writes what the guests had done of their own work, over the time since the restore was
// asked for, as SVG: all methods and the warm run in one plot, up to the last of Points; of several
// repetitions the one whose TTR is the median.
func (r Report) WriteWork(w io.Writer) error {
	points := r.Points()
	p := newPlot("The guest's first work", "seconds since the restore was asked for", r.units()+" done")
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, max(r.workSpan(), time.Millisecond).Seconds(), 0, 1
	add := func(name string, m Method, style draw.LineStyle) {
		if m.Pace == nil || len(points) == 0 {
			return
		}
		line := &plotter.Line{XYs: m.work(points[len(points)-1]), LineStyle: style}
		p.Add(line)
		p.Legend.Add(name, line)
	}
	if r.Warm != nil {
		add(warmName, *r.Warm, draw.LineStyle{Color: softColor, Width: 4})
	}
	for i, g := range r.methods() {
		add(g.name, r.typical(g), methodLine(g.name, i))
	}
	p.Y.Max *= 1.05
	svg, page := newFigure(figureHeight)
	drawBeside(page, p)
	if err := writeSVG(w, svg); err != nil {
		return fmt.Errorf("write the figure of the work: %w", err)
	}
	return nil
}

// work is the curve of a guest's work up to so many units, from nothing at its first instruction.
// Points that cannot be told apart in the figure are left out.
func (m Method) work(units uint64) plotter.XYs {
	line := plotter.XYs{{X: m.Ready.Seconds()}}
	fine := float64(units) / maxBars
	for _, mark := range m.Pace.Marks {
		at := plotter.XY{X: (m.Ready + mark.At).Seconds(), Y: float64(mark.Units)}
		if mark.Units >= units || at.Y-line[len(line)-1].Y >= fine {
			line = append(line, at)
		}
		if mark.Units >= units {
			break
		}
	}
	return line
}
