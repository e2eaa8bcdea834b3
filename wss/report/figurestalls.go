package report

import (
	"fmt"
	"image/color"
	"io"
	"strconv"
	"strings"
	"time"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/thawfs/thaw/wss"
)

// Heights of parts of the figure of the stalls, in points.
const (
	headHeight  = 86  // title and legend
	panelHeight = 122 // with its title and the labels of its axis
	labelHeight = 18  // of the time axis, under the last panel
)

// WriteFigure writes the figure of the poster to VEE'11, an SVG document, to w: the share of time
// spent fetching memory, over time, one panel for each method, all with the same scales. Time 0 is
// the guest's first instruction; what the user waits for before it stands to the left. Of several
// repetitions it shows the one whose TTR is the median.
func (r Report) WriteFigure(w io.Writer) error {
	groups := r.methods()
	svg, page := newFigure(headHeight + panelHeight*vg.Length(len(groups)) + labelHeight)
	b := r.bars()
	r.drawHead(page, b)
	if len(groups) == 0 {
		return writeSVG(w, svg)
	}
	panels := make([][]*plot.Plot, len(groups))
	for i, g := range groups {
		panels[i] = []*plot.Plot{r.panel(b, g)}
	}
	panels[len(groups)-1][0].X.Label.Text = b.label()
	page.Max.Y -= headHeight - figureMargin
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadY: 10}
	for i, c := range plot.Align(panels, tiles, page) {
		panels[i][0].Draw(c[0])
	}
	return writeSVG(w, svg)
}

// drawHead writes the title and the legend.
func (r Report) drawHead(c draw.Canvas, b bars) {
	legend := newLegend()
	title := legend.TextStyle
	setStyle(&title, 15, inkColor)
	title.Font.Weight, title.YAlign = xfont.WeightBold, draw.YTop
	c.FillText(title, vg.Point{X: c.Min.X, Y: c.Max.Y},
		fmt.Sprintf("Time spent fetching memory, per %s", b.stepName()))
	legend.Add("before the start: the user waits", steps(nil, beforeColor))
	legend.Add("after the start: the guest waits", steps(nil, afterColor))
	legend.Add(fmt.Sprintf("responsive: TTR(%s, %.3g %%)", humanSeconds(r.w()), r.u()*100),
		vertical{style: ttrLine()})
	legend.Draw(draw.Crop(c, 0, 0, 0, -22))
}

// panel is the plot of one method.
func (r Report) panel(b bars, g runs) *plot.Plot {
	m := r.typical(g)
	p := newPlot(m.Name+": "+r.caption(m, len(g.all)), "", "fetching (%)")
	p.Title.TextStyle.Font.Size, p.Title.Padding = 11, 5
	p.X.Min, p.X.Max = b.min.Seconds(), b.max.Seconds()
	p.Y.Min, p.Y.Max = 0, 100
	p.Add(steps(b.of(NewTimeline([]wss.Interval{{Start: -m.Ready, End: 0}})), beforeColor),
		steps(b.of(after(m)), afterColor),
		vertical{0, draw.LineStyle{Color: inkColor, Width: 1.1}})
	if ttr, ok := m.TTR(r.w(), r.u()); ok {
		p.Add(vertical{(ttr - m.Ready).Seconds(), ttrLine()})
	}
	return p
}

// caption is the text over a panel.
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
	if total := m.TotalStall(); total > 0 {
		parts = append(parts, fmt.Sprintf("waits %s, %s at once", humanSeconds(total),
			humanSeconds(m.LongestStall())))
	}
	if runs > 1 {
		parts = append(parts, fmt.Sprintf("median of %d", runs))
	}
	return strings.Join(parts, "  ·  ")
}

func ttrLine() draw.LineStyle {
	return draw.LineStyle{Color: ttrColor, Width: 1.6, Dashes: []vg.Length{4, 2.5}}
}

// steps is a filled histogram.
func steps(outline plotter.XYs, fill color.Color) *plotter.Line {
	return &plotter.Line{XYs: outline, StepStyle: plotter.PostStep, FillColor: fill}
}

// after is when the guest waited, on the clock of the figure.
func after(m Method) *Timeline {
	in := make([]wss.Interval, 0, len(m.Stalls))
	for _, s := range m.Stalls {
		in = append(in, wss.Interval{Start: max(s.Start-m.Ready, 0), End: min(s.End, m.End) - m.Ready})
	}
	return NewTimeline(in)
}

// maxBars keeps the bars of a histogram wide enough to see.
const maxBars = 400

// bars is the histogram that all panels share: time from min to max, both multiples of step, on a
// clock whose 0 is the guest's first instruction.
type bars struct {
	min, max, step time.Duration
	observed       time.Duration // longest observation after time 0; max may leave its quiet end out
}

// quiet is the share of a step that cannot be seen in the figure.
const quiet = 0.002

// bars makes the histogram in which everything that happened has room. A long quiet end is left out.
func (r Report) bars() bars {
	var before, busy time.Duration
	b := bars{step: 100 * time.Millisecond}
	for _, m := range r.Methods {
		before, b.observed = max(before, m.Ready), max(b.observed, m.End-m.Ready)
		busy = max(busy, r.busy(m))
	}
	length := max(min(busy+busy/4+time.Second, b.observed), 2*time.Second)
	for _, step := range []time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour} {
		if (before+length)/b.step > maxBars {
			b.step = step
		}
	}
	// One more step on the left, so that the first bar does not touch the axis.
	b.min = -((before+b.step-1)/b.step + 1) * b.step
	b.max = (length + b.step - 1) / b.step * b.step
	return b
}

// busy is how long after its first instruction something is seen of a method.
func (r Report) busy(m Method) (end time.Duration) {
	if ttr, ok := m.TTR(r.w(), r.u()); ok {
		end = ttr - m.Ready
	}
	const step = 100 * time.Millisecond
	stalls := after(m)
	for _, s := range stalls.Intervals() {
		from := s.Start / step * step
		if float64(stalls.Stalled(from, from+step)) > quiet*float64(step) || s.End > from+step {
			end = max(end, s.End)
		}
	}
	return end
}

// of is the outline of the histogram of a timeline, in seconds and percent: a point for each bar
// that is not as high as the one before it.
func (b bars) of(t *Timeline) (outline plotter.XYs) {
	at := b.min
	for _, f := range t.Fractions(b.min, b.max, b.step) {
		if n := len(outline); n == 0 || outline[n-1].Y != f*100 {
			outline = append(outline, plotter.XY{X: at.Seconds(), Y: f * 100})
		}
		at += b.step
	}
	return append(outline, plotter.XY{X: b.max.Seconds()})
}

// label is what stands under the time axis.
func (b bars) label() string {
	text := "seconds since the guest's first instruction"
	if b.observed > b.max {
		text += fmt.Sprintf(" (observed for %s, quiet from here on)", humanSeconds(b.observed))
	}
	return text
}

// stepName is "100 ms", "second", "10 s".
func (b bars) stepName() string {
	switch {
	case b.step < time.Second:
		return strconv.FormatInt(b.step.Milliseconds(), 10) + " ms"
	case b.step == time.Second:
		return "second"
	default:
		return strconv.FormatInt(int64(b.step/time.Second), 10) + " s"
	}
}
