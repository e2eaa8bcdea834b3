package report

import (
	"fmt"
	"io"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// WriteCurves writes TTR(w, u) over u as SVG, the curves of all methods in one plot; of several
// repetitions the one whose TTR is the median. A curve ends in a ring at the greatest u that was
// seen to be reached.
func (r Report) WriteCurves(w io.Writer) error {
	ttr := fmt.Sprintf("TTR(%s, u)", humanSeconds(r.w()))
	p := newPlot("Time to responsiveness over the required utilisation",
		"u: the share of every window that is left to the guest (%)", ttr+" (s)")
	p.X.Min, p.X.Max, p.Y.Min = 0, 100, 0
	for _, u := range r.us() {
		p.Add(vertical{u * 100, draw.LineStyle{Color: softColor, Width: 0.8, Dashes: []vg.Length{2, 2}}})
	}
	for i, g := range r.methods() {
		c := r.typical(g).TTRCurve(r.w())
		line := &plotter.Line{XYs: c.outline(), LineStyle: methodLine(g.name, i)}
		p.Add(line)
		p.Legend.Add(g.name, line)
		if n := len(line.XYs); n > 0 && c.Greatest() < 1 {
			ring := draw.GlyphStyle{Color: line.Color, Radius: 3.5, Shape: draw.RingGlyph{}}
			p.Add(&plotter.Scatter{XYs: line.XYs[n-1:], GlyphStyle: ring})
		}
	}
	p.Y.Max = max(p.Y.Max*1.05, 0.1)
	svg, page := newFigure(figureHeight)
	drawBeside(page, p)
	return writeSVG(w, svg)
}

// outline is the curve in percent and seconds. A curve has a corner for every stall; those that
// cannot be told apart in the figure are left out.
func (c Curve) outline() (outline plotter.XYs) {
	points := c.Points()
	if len(points) == 0 {
		return nil
	}
	const fine = 1e-3 // of an axis
	top := points[len(points)-1].TTR.Seconds()
	for i, p := range points {
		at := plotter.XY{X: p.U * 100, Y: p.TTR.Seconds()}
		if n := len(outline); n > 0 && i < len(points)-1 && at.X-outline[n-1].X < fine*100 &&
			at.Y-outline[n-1].Y < fine*top {
			continue
		}
		outline = append(outline, at)
	}
	return outline
}
