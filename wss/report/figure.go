package report

import (
	"fmt"
	"image/color"
	"io"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/thawfs/thaw/wss"
)

// Heights of the figure, in points.
const (
	headHeight  = 58  // title and legend
	panelHeight = 122 // with its title line and the labels of its axis
	panelTitle  = 24
	footHeight  = 30 // label of the time axis
)

// Figure writes the poster's figure as SVG to a file, replacing it in one step: the fraction of
// time spent fetching memory, over time, one panel for each method, all with the same scales. Time
// 0 is the guest's first instruction; what the user waits for before it stands to the left. Of
// several repetitions it shows the one whose TTR is the median.
func (r Report) Figure(path string) error { return writeFigure(path, r.WriteFigure) }

// Figure writes the figure of the methods with the default window and utilisation.
func Figure(path string, methods []Method) error { return Report{Methods: methods}.Figure(path) }

// WriteFigure writes the figure, an SVG document, to w.
func (r Report) WriteFigure(w io.Writer) error {
	height := vg.Length(headHeight + panelHeight*max(len(r.methods()), 1) + footHeight)
	svg, page := newFigure(height)

	a := r.axes()
	r.drawHead(page, a)
	top := page.Max.Y - headHeight
	for _, g := range r.methods() {
		panel := page
		panel.Max.Y, panel.Min.Y = top, top-panelHeight
		r.drawPanel(panel, a, g)
		top -= panelHeight
	}
	label := style(11, softColor, false)
	label.XAlign = draw.XCenter
	page.FillText(label, vg.Point{X: page.Center().X, Y: page.Min.Y + 10}, a.label())

	return writeSVG(w, svg)
}

// drawHead writes the title and the legend.
func (r Report) drawHead(c draw.Canvas, a axes) {
	y := c.Max.Y - 22
	c.FillText(style(15, inkColor, true), vg.Point{X: c.Min.X, Y: y},
		fmt.Sprintf("Time spent fetching memory, per %s", a.stepName()))
	y -= 22
	x := c.Min.X
	text := style(11, softColor, false)
	for _, entry := range []struct {
		color color.Color
		dash  bool
		text  string
	}{
		{beforeColor, false, "before the start: the user waits"},
		{afterColor, false, "after the start: the guest waits"},
		{ttrColor, true, r.ttrName()},
	} {
		if entry.dash {
			c.StrokeLine2(ttrLine(), x+4, y-2, x+4, y+9)
		} else {
			c.FillPolygon(entry.color, box(x, y-1, x+9, y+8))
		}
		c.FillText(text, vg.Point{X: x + 14, Y: y}, entry.text)
		x += 14 + text.Width(entry.text)*fontSlack + 16
	}
}

func (r Report) ttrName() string {
	return fmt.Sprintf("responsive: TTR(%s, %.0f %%)", humanSeconds(r.w()), r.u()*100)
}

// drawPanel draws one method: its title line, then the axes and the two histograms.
func (r Report) drawPanel(c draw.Canvas, a axes, g runs) {
	m := r.typical(g)
	name := style(12, inkColor, true)
	y := c.Max.Y - 14
	c.FillText(name, vg.Point{X: c.Min.X, Y: y}, m.Name)
	c.FillText(style(11, softColor, false),
		vg.Point{X: c.Min.X + name.Width(m.Name)*fontSlack + 8, Y: y}, r.caption(m, len(g.all)))

	data := draw.Crop(c, 38, -14, 20, -panelTitle)
	a.drawGrid(c, data)
	a.drawBars(data, beforeColor, NewTimeline([]wss.Interval{{Start: -m.Ready, End: 0}}))
	a.drawBars(data, afterColor, after(m))
	a.drawStart(data)
	if ttr, ok := m.TTR(r.w(), r.u()); ok {
		x := a.x(data, ttr-m.Ready)
		data.StrokeLine2(ttrLine(), x, data.Min.Y, x, data.Max.Y)
	}
}

// caption is what a panel says in words.
func (r Report) caption(m Method, runs int) string {
	parts := []string{"starts after " + humanSeconds(m.Ready)}
	if ttr, ok := m.TTR(r.w(), r.u()); ok {
		parts = append(parts, "responsive after "+humanSeconds(ttr))
	} else {
		parts = append(parts, "not seen responsive in "+humanSeconds(m.End))
	}
	parts = append(parts, comma(m.Prefetched)+" pages prefetched")
	if !m.NoLazy {
		parts = append(parts, comma(m.Lazy)+" lazy")
	}
	if runs > 1 {
		parts = append(parts, fmt.Sprintf("median of %d", runs))
	}
	return strings.Join(parts, "  ·  ")
}

// after is when the guest waited, on the clock of the figure.
func after(m Method) *Timeline {
	in := make([]wss.Interval, 0, len(m.Stalls))
	for _, s := range m.Stalls {
		in = append(in, wss.Interval{Start: max(s.Start-m.Ready, 0), End: min(s.End, m.End) - m.Ready})
	}
	return NewTimeline(in)
}
