package report

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"math"
	"strconv"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sizes that all figures share, in points.
const (
	figureWidth  = 760
	figureHeight = 330 // of a figure with one plot
	figureMargin = 16

	// fontSlack is room for a reader without the Liberation fonts, whose own may be wider.
	fontSlack = 1.2
)

// The colours of the figures. A page may give them others: see inlineSVG.
var (
	pageColor   = color.RGBA{0xff, 0xff, 0xff, 0xff}
	inkColor    = color.RGBA{0x22, 0x26, 0x2b, 0xff}
	softColor   = color.RGBA{0x6b, 0x72, 0x7b, 0xff}
	gridColor   = color.RGBA{0xe3, 0xe6, 0xea, 0xff}
	beforeColor = color.RGBA{0x5b, 0x8f, 0xc7, 0xff} // before the first instruction: the user waits
	afterColor  = color.RGBA{0xe0, 0x6c, 0x3a, 0xff} // after it: the guest waits
	ttrColor    = color.RGBA{0x1f, 0x8a, 0x5b, 0xff}
	violetColor = color.RGBA{0x8a, 0x5c, 0xc2, 0xff}
	goldColor   = color.RGBA{0xb8, 0x8a, 0x14, 0xff}
)

// newFigure is an empty figure and its canvas, without the margins.
func newFigure(height vg.Length) (*vgsvg.Canvas, draw.Canvas) {
	svg := vgsvg.New(figureWidth, height)
	page := draw.New(svg)
	page.SetColor(pageColor)
	page.Fill(page.Rectangle.Path())
	return svg, draw.Crop(page, figureMargin, -figureMargin, figureMargin, -figureMargin)
}

// newPlot is a plot in the style of the figures: a grid behind it, its axes without a gap.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text, p.Title.Padding = title, 8
	setStyle(&p.Title.TextStyle, 14, inkColor)
	p.Title.TextStyle.Font.Weight = xfont.WeightBold
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Padding, a.LineStyle.Color = 0, softColor
		a.Label.Padding = 4
		setStyle(&a.Label.TextStyle, 11, softColor)
		a.Tick.Length, a.Tick.LineStyle.Color = 4, softColor
		setStyle(&a.Tick.Label, 10, softColor)
	}
	p.X.Tick.Marker = plot.TickerFunc(labelled)
	p.Legend = newLegend()
	line := draw.LineStyle{Color: gridColor, Width: 0.7}
	p.Add(&plotter.Grid{Vertical: line, Horizontal: line})
	return p
}

// labelled are the ticks of gonum/plot, the minor ones with labels too: an axis along the figure has
// room for them.
func labelled(from, to float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(from, to)
	for i := range ticks {
		const fine = 1e6 // what is less is an error of floating point
		ticks[i].Label = strconv.FormatFloat(math.Round(ticks[i].Value*fine)/fine+0, 'f', -1, 64)
	}
	return ticks
}

// newLegend is a legend that begins at the upper left of where it is drawn.
func newLegend() plot.Legend {
	l := plot.NewLegend()
	l.Top, l.Left, l.Padding = true, true, 4
	setStyle(&l.TextStyle, 11, softColor)
	return l
}

func setStyle(s *draw.TextStyle, size vg.Length, c color.Color) {
	s.Color, s.Font = c, font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

// drawBeside draws a plot, and its legend to the right of it, where it covers nothing.
func drawBeside(page draw.Canvas, p *plot.Plot) {
	const gap = 14
	legend := p.Legend
	p.Legend = newLegend()
	width := legend.Rectangle(page).Size().X*fontSlack + gap
	plotted := draw.Crop(page, 0, -width, 0, 0)
	p.Draw(plotted)
	beside := page
	beside.Min.X, beside.Max.Y = plotted.Max.X+gap, p.DataCanvas(plotted).Max.Y
	legend.Draw(beside)
}

// vertical is a line across a plot at one place of its horizontal axis.
type vertical struct {
	at    float64
	style draw.LineStyle
}

// Plot implements plot.Plotter.
func (v vertical) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	c.StrokeLines(v.style, c.ClipLinesX([]vg.Point{{X: x(v.at), Y: c.Min.Y}, {X: x(v.at), Y: c.Max.Y}})...)
}

// Thumbnail implements plot.Thumbnailer.
func (v vertical) Thumbnail(c *draw.Canvas) {
	c.StrokeLine2(v.style, c.Center().X, c.Min.Y, c.Center().X, c.Max.Y)
}

// band is a stretch of the vertical axis, across the plot.
type band struct {
	low, high float64
	fill      color.Color
}

// Plot implements plot.Plotter.
func (b band) Plot(c draw.Canvas, p *plot.Plot) {
	_, y := p.Transforms(&c)
	low, high := max(y(b.low), c.Min.Y), min(y(b.high), c.Max.Y)
	c.FillPolygon(b.fill, []vg.Point{{X: c.Min.X, Y: low}, {X: c.Max.X, Y: low},
		{X: c.Max.X, Y: high}, {X: c.Min.X, Y: high}})
}

// DataRange implements plot.DataRanger. It has no extent on the horizontal axis.
func (b band) DataRange() (xmin, xmax, ymin, ymax float64) {
	return math.Inf(1), math.Inf(-1), b.low, b.high
}

// Thumbnail implements plot.Thumbnailer.
func (b band) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(b.fill, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
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

// writeSVG writes a figure as a document of its own. The fonts are not embedded (they would be 99 %
// of the file): it names what may stand in for them.
func writeSVG(w io.Writer, svg *vgsvg.Canvas) error {
	var out bytes.Buffer
	if _, err := svg.WriteTo(&out); err != nil {
		return err
	}
	text := strings.ReplaceAll(out.String(), "font-family:Liberation Sans;",
		"font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")
	_, err := io.WriteString(w, text)
	return err
}

// inlineSVG is a figure to stand in an HTML page: without the XML prologue, and with its colours as
// variables of the page's style, so that it is dark where the page is.
func inlineSVG(write func(io.Writer) error) (string, error) {
	var out strings.Builder
	if err := write(&out); err != nil {
		return "", err
	}
	text := out.String()
	begin := strings.Index(text, "<svg")
	if begin < 0 {
		return "", fmt.Errorf("no figure in %.40q", text)
	}
	var pairs []string
	for _, c := range []struct {
		color color.RGBA
		name  string
	}{
		{pageColor, "page"}, {inkColor, "ink"}, {softColor, "soft"}, {gridColor, "grid"},
		{beforeColor, "blue"}, {afterColor, "orange"}, {ttrColor, "green"},
		{violetColor, "violet"}, {goldColor, "gold"},
	} {
		hex := fmt.Sprintf(":#%02X%02X%02X", c.color.R, c.color.G, c.color.B)
		pairs = append(pairs, "fill"+hex, "fill:var(--"+c.name+")", "stroke"+hex,
			"stroke:var(--"+c.name+")")
	}
	return strings.NewReplacer(pairs...).Replace(text[begin:]), nil
}
