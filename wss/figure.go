package wss

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sizes of the figure, in points.
const (
	figureWidth  = 760
	figureMargin = 16
	headHeight   = 58  // title and legend
	panelHeight  = 122 // with its title line and the labels of its axis
	panelTitle   = 24
	footHeight   = 30 // label of the time axis

	// fontSlack is room for a reader without the Liberation fonts, whose own are wider.
	fontSlack = 1.2
)

var (
	inkColor    = color.RGBA{0x22, 0x26, 0x2b, 0xff}
	softColor   = color.RGBA{0x6b, 0x72, 0x7b, 0xff}
	gridColor   = color.RGBA{0xe3, 0xe6, 0xea, 0xff}
	beforeColor = color.RGBA{0x5b, 0x8f, 0xc7, 0xff} // before the first instruction: the user waits
	afterColor  = color.RGBA{0xe0, 0x6c, 0x3a, 0xff} // after it: the guest waits
	ttrColor    = color.RGBA{0x1f, 0x8a, 0x5b, 0xff}
)

// Figure writes the poster's figure as SVG to a file, replacing it in one step: the fraction of
// time spent fetching memory, over time, one panel for each method, all with the same scales. Time
// 0 is the guest's first instruction; what the user waits for before it stands to the left.
func (r Report) Figure(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".figure-*")
	if err != nil {
		return fmt.Errorf("write figure: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails when it was renamed, as it should
	if err := r.WriteFigure(tmp); err != nil {
		tmp.Close()
		return fmt.Errorf("write figure %s: %w", path, err)
	}
	if err := tmp.Chmod(0o644); err != nil {
		tmp.Close()
		return fmt.Errorf("write figure %s: %w", path, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write figure %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write figure: %w", err)
	}
	return nil
}

// Figure writes the figure of the methods with the default window and utilisation.
func Figure(path string, methods []Method) error { return Report{Methods: methods}.Figure(path) }

// WriteFigure writes the figure, an SVG document, to w.
func (r Report) WriteFigure(w io.Writer) error {
	height := vg.Length(headHeight + panelHeight*max(len(r.Methods), 1) + footHeight)
	svg := vgsvg.New(figureWidth, height)
	page := draw.New(svg)
	page.FillPolygon(color.White, outline(page.Rectangle))
	page = draw.Crop(page, figureMargin, -figureMargin, 0, 0)

	a := r.axes()
	r.drawHead(page, a)
	top := page.Max.Y - headHeight
	for _, m := range r.ordered() {
		panel := page
		panel.Max.Y, panel.Min.Y = top, top-panelHeight
		r.drawPanel(panel, a, m)
		top -= panelHeight
	}
	label := style(11, softColor, false)
	label.XAlign = draw.XCenter
	page.FillText(label, vg.Point{X: page.Center().X, Y: page.Min.Y + 10}, a.label())

	var out bytes.Buffer
	if _, err := svg.WriteTo(&out); err != nil {
		return err
	}
	// The fonts are not embedded (they would be 99 % of the file): name what may stand in for them.
	text := strings.ReplaceAll(out.String(), "font-family:Liberation Sans;",
		"font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")
	_, err := io.WriteString(w, text)
	return err
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
func (r Report) drawPanel(c draw.Canvas, a axes, m Method) {
	name := style(12, inkColor, true)
	y := c.Max.Y - 14
	c.FillText(name, vg.Point{X: c.Min.X, Y: y}, m.Name)
	c.FillText(style(11, softColor, false),
		vg.Point{X: c.Min.X + name.Width(m.Name)*fontSlack + 8, Y: y}, r.caption(m))

	data := draw.Crop(c, 38, -14, 20, -panelTitle)
	a.drawGrid(c, data)
	a.drawBars(data, beforeColor, NewTimeline([]Interval{{-m.Ready, 0}}))
	a.drawBars(data, afterColor, after(m))
	a.drawStart(data)
	if ttr, ok := m.TTR(r.w(), r.u()); ok {
		x := a.x(data, ttr-m.Ready)
		data.StrokeLine2(ttrLine(), x, data.Min.Y, x, data.Max.Y)
	}
}

// caption is what a panel says in words.
func (r Report) caption(m Method) string {
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
	return strings.Join(parts, "  ·  ")
}

func style(size vg.Length, c color.Color, bold bool) draw.TextStyle {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	if bold {
		f.Weight = boldWeight
	}
	return draw.TextStyle{Color: c, Font: f, Handler: textHandler()}
}

func ttrLine() draw.LineStyle {
	return draw.LineStyle{Color: ttrColor, Width: 1.6, Dashes: []vg.Length{4, 2.5}}
}

func box(x0, y0, x1, y1 vg.Length) []vg.Point {
	return []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}}
}

func outline(r vg.Rectangle) []vg.Point { return box(r.Min.X, r.Min.Y, r.Max.X, r.Max.Y) }

// after is when the guest waited, on the clock of the figure.
func after(m Method) *Timeline {
	in := make([]Interval, 0, len(m.Stalls))
	for _, s := range m.Stalls {
		in = append(in, Interval{max(s.Start-m.Ready, 0), min(s.End, m.End) - m.Ready})
	}
	return NewTimeline(in)
}
