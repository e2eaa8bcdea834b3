package report

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// PaceFigure writes the figure of WritePaces to a file, replacing it in one step.
func (r Report) PaceFigure(path string) error { return writeFigure(path, r.WritePaces) }

// WritePaces writes the rates at which the guests worked, over the time since the restore was asked
// for, as SVG: all methods in one plot, of several repetitions the one whose TTR is the median.
func (r Report) WritePaces(w io.Writer) error {
	svg, page := newFigure(curveHeight)
	units := r.units()
	page.FillText(style(15, inkColor, true), vg.Point{X: page.Min.X, Y: page.Max.Y - 22},
		units+" a second, over time")
	var lines []methodCurve
	var paced []Method
	for i, g := range r.methods() {
		if m := r.typical(g); m.Pace != nil {
			lines = append(lines, methodCurve{name: g.name, line: methodLine(g.name, i)})
			paced = append(paced, m)
		}
	}
	legend(page, page.Max.Y-44, lines)
	p := r.paceScale(paced)
	data := draw.Crop(page, 56, -14, 44, -64)
	p.drawGrid(page, data)
	if s, _, ok := r.steady(); ok {
		data.FillPolygon(gridColor, box(data.Min.X, p.y(data, max(s.Mean-s.Deviation, 0)),
			data.Max.X, p.y(data, min(s.Mean+s.Deviation, p.top))))
	}
	for i := len(paced) - 1; i >= 0; i-- {
		data.StrokeLines(lines[i].line, p.line(data, paced[i]))
	}
	label := style(11, softColor, false)
	label.XAlign = draw.XCenter
	page.FillText(label, vg.Point{X: data.Center().X, Y: page.Min.Y + 12},
		fmt.Sprintf("seconds since the restore was asked for; a point is a window of %s",
			humanSeconds(p.window)))
	return writeSVG(w, svg)
}

// paceScale is the scale of the plot: up to a time and a rate, in windows of a length.
type paceScale struct {
	end, window time.Duration
	top         float64
}

func (r Report) paceScale(paced []Method) paceScale {
	p := paceScale{window: 250 * time.Millisecond}
	for _, m := range paced {
		p.end = max(p.end, m.Ready+m.Pace.Ran)
	}
	if end := r.lastEvent(paced); end < p.end {
		p.end = end
	}
	for p.end/p.window > maxBins/4 {
		p.window *= 2
	}
	for _, m := range paced {
		for at := time.Duration(0); at+p.window <= m.Pace.Ran; at += p.window {
			p.top = max(p.top, m.Pace.Within(at, at+p.window)/p.window.Seconds())
		}
	}
	if s, _, ok := r.steady(); ok {
		p.top = max(p.top, s.Mean+s.Deviation)
	}
	p.top = max(p.top, 1) * 1.08
	return p
}

// lastEvent is when all methods have recovered, and some time more: the quiet end is left out.
func (r Report) lastEvent(paced []Method) (end time.Duration) {
	s, _, ok := r.steady()
	for _, m := range paced {
		x, seen := m.Recovery(s, r.stretch())
		if !ok || !seen {
			x = m.Ready + m.Pace.Ran
		}
		end = max(end, x)
	}
	return end + end/4 + r.stretch()
}

func (p paceScale) x(c draw.Canvas, t time.Duration) vg.Length {
	return c.X(float64(t) / float64(max(p.end, 1)))
}

func (p paceScale) y(c draw.Canvas, rate float64) vg.Length { return c.Y(rate / p.top) }

// line goes through the middle of each window, from nothing at the first instruction.
func (p paceScale) line(c draw.Canvas, m Method) []vg.Point {
	line := []vg.Point{{X: p.x(c, m.Ready), Y: p.y(c, 0)}}
	for at := time.Duration(0); at+p.window <= m.Pace.Ran; at += p.window {
		middle := m.Ready + at + p.window/2
		if middle > p.end {
			break
		}
		rate := m.Pace.Within(at, at+p.window) / p.window.Seconds()
		line = append(line, vg.Point{X: p.x(c, middle), Y: p.y(c, rate)})
	}
	return line
}

func (p paceScale) drawGrid(page, data draw.Canvas) {
	line := draw.LineStyle{Color: gridColor, Width: 0.7}
	label := style(10, softColor, false)
	label.XAlign, label.YAlign = draw.XRight, draw.YCenter
	// The ticks of rates are those of times, read as numbers.
	step := curveTick(time.Duration(p.top * float64(time.Second))).Seconds()
	for rate := 0.0; rate <= p.top; rate += step {
		y := p.y(data, rate)
		data.StrokeLine2(line, data.Min.X, y, data.Max.X, y)
		page.FillText(label, vg.Point{X: data.Min.X - 6, Y: y}, number3(rate))
	}
	label.XAlign, label.YAlign = draw.XCenter, draw.YTop
	ticks := axes{max: max(p.end, time.Second)}
	for t := time.Duration(0); t <= p.end; t += ticks.tickStep() {
		x := p.x(data, t)
		data.StrokeLine2(line, x, data.Min.Y, x, data.Max.Y)
		page.FillText(label, vg.Point{X: x, Y: data.Min.Y - 4},
			strconv.FormatFloat(t.Seconds(), 'g', 4, 64))
	}
	base := draw.LineStyle{Color: softColor, Width: 0.8}
	data.StrokeLine2(base, data.Min.X, data.Min.Y, data.Max.X, data.Min.Y)
}
