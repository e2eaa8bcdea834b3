package wss

import (
	"image/color"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// WriteSVG writes the picture as SVG.
func (h Heat) WriteSVG(w io.Writer) error {
	svg, page := newFigure(heatHeight)
	page.FillText(style(15, inkColor, true), vg.Point{X: page.Min.X, Y: page.Max.Y - 22},
		"Where in guest memory pages were touched first, and when")
	h.drawLegend(page, page.Max.Y-44)
	data := draw.Crop(page, 58, -14, 44, -64)
	h.drawGrid(page, data)
	top := h.top()
	for i, cells := range h.Cells {
		for bin := range h.Bins {
			h.drawRow(data, sourceColor(h.Sources[i], i), cells[bin*h.Times:][:h.Times], bin, top)
		}
	}
	label := style(11, softColor, false)
	label.XAlign = draw.XCenter
	page.FillText(label, vg.Point{X: data.Center().X, Y: page.Min.Y + 12},
		"seconds since the start of the recording")
	return writeSVG(w, svg)
}

// sourceColor is always the same for the same source.
func sourceColor(s Source, i int) color.RGBA {
	switch s {
	case SourceRead:
		return beforeColor
	case SourceAccess:
		return violetColor
	case SourceTrace:
		return ttrColor
	}
	others := []color.RGBA{afterColor, goldColor, softColor}
	return others[i%len(others)]
}

func (h Heat) drawLegend(c draw.Canvas, y vg.Length) {
	text := style(11, softColor, false)
	x := c.Min.X
	for i, source := range h.Sources {
		name := string(source)
		c.FillPolygon(sourceColor(source, i), box(x, y-1, x+9, y+8))
		c.FillText(text, vg.Point{X: x + 14, Y: y}, name)
		x += 14 + text.Width(name)*fontSlack + 16
	}
}

// drawRow draws a bin, neighbours of one shade as one box.
func (h Heat) drawRow(c draw.Canvas, fill color.RGBA, cells []float64, bin int, top float64) {
	y0, y1 := c.Y(float64(bin)/float64(h.Bins)), c.Y(float64(bin+1)/float64(h.Bins))
	for t := 0; t < h.Times; {
		shade, first := level(cells[t], top), t
		for t < h.Times && level(cells[t], top) == shade {
			t++
		}
		if shade > 0 {
			x0, x1 := c.X(float64(first)/float64(h.Times)), c.X(float64(t)/float64(h.Times))
			c.FillPolygon(color.NRGBA{fill.R, fill.G, fill.B,
				uint8(0x30 + 0xcf*(shade-1)/(heatLevels-1))}, box(x0, y0, x1, y1))
		}
	}
}

func (h Heat) drawGrid(page, data draw.Canvas) {
	line := draw.LineStyle{Color: gridColor, Width: 0.7}
	label := style(10, softColor, false)
	label.XAlign, label.YAlign = draw.XRight, draw.YCenter
	for i := range 5 {
		y := data.Y(float64(i) / 4)
		data.StrokeLine2(line, data.Min.X, y, data.Max.X, y)
		at := uint64(math.Round(float64(i) / 4 * float64(h.ImagePages) * PageSize))
		page.FillText(label, vg.Point{X: data.Min.X - 6, Y: y}, humanize.IBytes(at))
	}
	label.XAlign, label.YAlign = draw.XCenter, draw.YTop
	window := max(h.Window, time.Millisecond)
	tick := func(x vg.Length, text string) {
		data.StrokeLine2(line, x, data.Min.Y, x, data.Max.Y)
		page.FillText(label, vg.Point{X: x, Y: data.Min.Y - 4}, text)
	}
	step := timeTick(window)
	for t := time.Duration(0); t <= window; t += step {
		tick(data.X(float64(t)/float64(window)), strconv.FormatFloat(t.Seconds(), 'g', 4, 64))
	}
	base := draw.LineStyle{Color: softColor, Width: 0.8}
	data.StrokeLine2(base, data.Min.X, data.Min.Y, data.Max.X, data.Min.Y)
}

// timeTick is the distance of the labelled ticks: at most 12 of them.
func timeTick(window time.Duration) time.Duration {
	for unit := 100 * time.Microsecond; ; unit *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			if window/(n*unit) <= 12 {
				return n * unit
			}
		}
	}
}
