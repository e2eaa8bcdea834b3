package report

import (
	"fmt"
	"image/color"
	"io"
	"strconv"
	"time"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// curveHeight is that of the figure of the curves, in points.
const curveHeight = 330

// CurveFigure writes the figure of WriteCurves to a file, replacing it in one step.
func (r Report) CurveFigure(path string) error { return writeFigure(path, r.WriteCurves) }

// WriteCurves writes TTR(w, u) over u as SVG, the curves of all methods in one plot; of several
// repetitions the one whose TTR is the median. A curve ends in a ring at the greatest u that was
// seen to be reached.
func (r Report) WriteCurves(w io.Writer) error {
	svg, page := newFigure(curveHeight)
	page.FillText(style(15, inkColor, true), vg.Point{X: page.Min.X, Y: page.Max.Y - 22},
		fmt.Sprintf("Time to responsiveness: TTR(%s, u) over u", humanSeconds(r.w())))
	curves := r.curves()
	legend(page, page.Max.Y-44, curves)

	data := draw.Crop(page, 44, -14, 44, -64)
	top := curveTop(curves)
	drawCurveGrid(page, data, top)
	for _, u := range r.us() {
		data.StrokeLine2(draw.LineStyle{Color: softColor, Width: 0.8,
			Dashes: []vg.Length{2, 2}}, data.X(u), data.Min.Y, data.X(u), data.Max.Y)
	}
	// The slow ones first: what matters lies on top.
	for i := len(curves) - 1; i >= 0; i-- {
		drawCurve(data, curves[i], top)
	}
	label := style(11, softColor, false)
	label.XAlign = draw.XCenter
	page.FillText(label, vg.Point{X: data.Center().X, Y: page.Min.Y + 12},
		"u: the share of every window that is left to the guest")
	return writeSVG(w, svg)
}

// methodCurve is a curve and how it is drawn.
type methodCurve struct {
	name  string
	curve Curve
	line  draw.LineStyle
}

func (r Report) curves() (curves []methodCurve) {
	for i, g := range r.methods() {
		curves = append(curves, methodCurve{g.name, r.typical(g).TTRCurve(r.w()),
			methodLine(g.name, i)})
	}
	return curves
}

// methodLine is the line of a method: always the same colour for the same name; the raw ones have
// the colour of their kind, dashed.
func methodLine(name string, i int) draw.LineStyle {
	line := draw.LineStyle{Width: 2}
	switch name {
	case MethodEager:
		line.Color = beforeColor
	case MethodLazy:
		line.Color = afterColor
	case MethodAccess:
		line.Color = violetColor
	case MethodTrace:
		line.Color = ttrColor
	case MethodUnion:
		line.Color = goldColor
	case MethodRawEager:
		line.Color, line.Dashes = beforeColor, []vg.Length{5, 3}
	case MethodRawLazy:
		line.Color, line.Dashes = afterColor, []vg.Length{5, 3}
	default:
		others := []color.Color{inkColor, softColor, goldColor, violetColor}
		line.Color, line.Dashes = others[i%len(others)], []vg.Length{1.5, 2}
	}
	return line
}

// legend writes the names of the methods in a row.
func legend(c draw.Canvas, y vg.Length, curves []methodCurve) {
	text := style(11, softColor, false)
	x := c.Min.X
	for _, m := range curves {
		width := 26 + text.Width(m.name)*fontSlack + 14
		if x > c.Min.X && x+width > c.Max.X {
			x, y = c.Min.X, y-13
		}
		c.StrokeLine2(m.line, x, y+3, x+20, y+3)
		c.FillText(text, vg.Point{X: x + 26, Y: y}, m.name)
		x += width
	}
}

// curveTop is the time at the upper end of the scale.
func curveTop(curves []methodCurve) time.Duration {
	top := 100 * time.Millisecond
	for _, m := range curves {
		if points := m.curve.Points(); len(points) > 0 {
			top = max(top, points[len(points)-1].TTR)
		}
	}
	step := curveTick(top)
	return (top + step/5 + step - 1) / step * step
}

// curveTick is the distance of the labelled ticks: at most 6 of them.
func curveTick(top time.Duration) time.Duration {
	for unit := 10 * time.Millisecond; ; unit *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			if top/(n*unit) <= 6 {
				return n * unit
			}
		}
	}
}

func drawCurveGrid(page, data draw.Canvas, top time.Duration) {
	line := draw.LineStyle{Color: gridColor, Width: 0.7}
	label := style(10, softColor, false)
	label.XAlign, label.YAlign = draw.XRight, draw.YCenter
	step := curveTick(top)
	for t := time.Duration(0); t <= top; t += step {
		y := data.Y(float64(t) / float64(top))
		data.StrokeLine2(line, data.Min.X, y, data.Max.X, y)
		page.FillText(label, vg.Point{X: data.Min.X - 6, Y: y},
			strconv.FormatFloat(t.Seconds(), 'g', 4, 64)+" s")
	}
	label.XAlign, label.YAlign = draw.XCenter, draw.YTop
	for u := 0; u <= 100; u += 10 {
		x := data.X(float64(u) / 100)
		data.StrokeLine2(line, x, data.Min.Y, x, data.Max.Y)
		page.FillText(label, vg.Point{X: x, Y: data.Min.Y - 4}, strconv.Itoa(u)+" %")
	}
	base := draw.LineStyle{Color: softColor, Width: 0.8}
	data.StrokeLine2(base, data.Min.X, data.Min.Y, data.Max.X, data.Min.Y)
}

func drawCurve(c draw.Canvas, m methodCurve, top time.Duration) {
	points := m.curve.Points()
	if len(points) == 0 {
		return
	}
	var line []vg.Point
	for i, p := range points {
		at := vg.Point{X: c.X(p.U), Y: c.Y(float64(p.TTR) / float64(top))}
		// A curve has a corner for every stall; those that nobody could tell apart are left out.
		if n := len(line); n > 0 && i < len(points)-1 && at.X-line[n-1].X < 0.4 &&
			at.Y-line[n-1].Y < 0.4 {
			continue
		}
		line = append(line, at)
	}
	c.StrokeLines(m.line, line)
	if m.curve.Greatest() < 1 {
		end := line[len(line)-1]
		ring := draw.GlyphStyle{Color: m.line.Color, Radius: 3.5, Shape: draw.RingGlyph{}}
		c.DrawGlyph(ring, end)
	}
}
