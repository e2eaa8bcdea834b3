package report

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sizes that all figures share, in points.
const (
	figureWidth  = 760
	figureMargin = 16

	// fontSlack is room for a reader without the Liberation fonts, whose own are wider.
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

// newFigure is an empty figure and its canvas, without the margins at its sides.
func newFigure(height vg.Length) (*vgsvg.Canvas, draw.Canvas) {
	svg := vgsvg.New(figureWidth, height)
	page := draw.New(svg)
	page.FillPolygon(pageColor, outline(page.Rectangle))
	return svg, draw.Crop(page, figureMargin, -figureMargin, 0, 0)
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

// writeFigure writes a figure to a file, replacing it in one step.
func writeFigure(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".figure-*")
	if err != nil {
		return fmt.Errorf("write figure: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails when it was renamed, as it should
	if err := write(tmp); err != nil {
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

func style(size vg.Length, c color.Color, bold bool) draw.TextStyle {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return draw.TextStyle{Color: c, Font: f, Handler: plot.DefaultTextHandler}
}

func ttrLine() draw.LineStyle {
	return draw.LineStyle{Color: ttrColor, Width: 1.6, Dashes: []vg.Length{4, 2.5}}
}

func box(x0, y0, x1, y1 vg.Length) []vg.Point {
	return []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}}
}

func outline(r vg.Rectangle) []vg.Point { return box(r.Min.X, r.Min.Y, r.Max.X, r.Max.Y) }
