package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

//go:embed page.html
var reportPage string

// htmlPage is what the page of a report is made of.
type htmlPage struct {
	Report
	Pages    string // of the guest
	Heading  string
	Headline string
	Gain     string
	Tables   []htmlTable
	W, U     string
	SharpW   string
	SharpU   string
	Warm     string // what the warm run did
	Units    string
	Playout  bool // there is such a column
	Windows  string
	Repeated string
	Recovery string
	Figures  []htmlFigure
}

type htmlTable struct {
	Header []string
	Rows   []htmlRow
}

type htmlRow struct {
	Name  string
	Raw   bool // without thaw
	Cells []htmlCell
}

// htmlCell is a median, and the least and the greatest where they differ.
type htmlCell struct {
	Text, Span string
	Best       bool
}

type htmlFigure struct {
	SVG   template.HTML
	Label string // for a screen reader
	Title string
	Text  string
}

// WriteHTML writes the report as one page that needs nothing else, neither network nor script.
func (r Report) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Parse(reportPage)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	page := htmlPage{
		Report: r, Headline: unbroken(r.Headline()), W: unbroken(humanSeconds(r.w())),
		U: fmt.Sprintf("%.3g %%", r.u()*100), Windows: r.windows(),
		Repeated: repetitions(r.methods()), Gain: unbroken(r.Gain()), Units: r.units(),
		SharpW: unbroken(spanText(SharpTTRWindow)),
		SharpU: unbroken(fmt.Sprintf("%.3g %%", SharpTTRUtilisation*100)),
		Warm:   unbroken(r.warmText()), Playout: len(r.playoutColumns()) > 0,
	}
	if r.GuestPages > 0 {
		page.Pages = comma(r.GuestPages)
	}
	if page.Heading = r.Title; page.Heading == "" {
		page.Heading = "Restores of one checkpoint, compared"
	}
	if s, origin, ok := r.steady(); ok {
		page.Recovery = fmt.Sprintf("%s ± %s %s a second, %s", number3(s.Mean), number3(s.Deviation),
			r.units(), origin)
	}
	page.Tables = r.htmlTables()
	if page.Figures, err = r.figures(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := t.Execute(w, page); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// space is one that is not broken.
const space = "\u00a0"

// breakable undoes unbroken.
func breakable(text string) string { return strings.ReplaceAll(text, space, " ") }

// unbroken keeps numbers and their units on one line.
func unbroken(text string) string {
	return strings.NewReplacer(" s)", space+"s)", "1st s", "1st"+space+"s",
		" s ", space+"s ", " s:", space+"s:",
		" s,", space+"s,", " s.", space+"s.", " ms", space+"ms", " ± ", space+"±"+space,
		" %", space+"%", " times", space+"times").Replace(text)
}

// SharpAllowed is what the sharp TTR lets a window be stalled.
func (p htmlPage) SharpAllowed() string {
	return unbroken(spanText(SharpTTRWindow - needed(SharpTTRWindow, SharpTTRUtilisation)))
}

// Stretch is how long a pace must last.
func (p htmlPage) Stretch() string { return humanSeconds(PaceStretch) }

// htmlTables are the two that are printed; that of the times has what is not printed as well.
func (r Report) htmlTables() []htmlTable {
	var brought, waited []column
	for _, c := range r.columns() {
		if c.in == pagesTable {
			brought = append(brought, c)
		} else {
			waited = append(waited, c)
		}
	}
	return []htmlTable{r.htmlTable(brought), r.htmlTable(waited)}
}

func (r Report) htmlTable(columns []column) htmlTable {
	t := htmlTable{Header: []string{"method"}}
	groups := r.methods()
	for _, g := range groups {
		t.Rows = append(t.Rows, htmlRow{Name: g.name,
			Raw: g.name == MethodRawEager || g.name == MethodRawLazy})
	}
	for _, c := range columns {
		t.Header = append(t.Header, unbroken(c.title))
		spreads := make([]spread, len(groups))
		for i, g := range groups {
			spreads[i] = c.spread(g)
		}
		for i, s := range spreads {
			t.Rows[i].Cells = append(t.Rows[i].Cells, htmlCell{Text: c.text(s.median), Span: c.span(s),
				Best: c.race && fastest(s.median, spreads)})
		}
	}
	return t
}

// fastest says whether no method has a lower median, and one has a greater.
func fastest(median outcome, of []spread) bool {
	slower := false
	for _, s := range of {
		if math.IsNaN(s.median.value) {
			continue
		}
		order := s.median.compare(median)
		if order < 0 {
			return false
		}
		slower = slower || order > 0
	}
	return slower && median.ok && !math.IsNaN(median.value)
}

// figures are the pictures of the page, with what teaches to read them.
func (r Report) figures() ([]htmlFigure, error) {
	if len(r.Methods) == 0 {
		return nil, nil
	}
	u := fmt.Sprintf("%.3g %%", r.u()*100)
	list := []struct {
		write func(io.Writer) error
		htmlFigure
	}{
		{r.WriteFigure, htmlFigure{
			Title: "Who waits, and when",
			Label: "The fraction of time spent fetching memory over time, one panel for each method",
			Text: "One panel a method, all on the same clock, whose 0 is the guest's first " +
				"instruction. To the left of it stands what the user waits for while memory is " +
				"brought (blue). To the right stands which part of its time the guest then spent " +
				"waiting for pages that had not been brought (orange): 100 % is a machine that " +
				"stands still. The dashed line is the moment from which every window of " +
				humanSeconds(r.w()) + " left the guest at least " + u + " of the time. A good " +
				"restore has little blue and hardly any orange.",
		}},
		{r.WriteCurves, htmlFigure{
			Title: "How soon, for how demanding a user",
			Label: "Time to responsiveness over the required utilisation, a curve for each method",
			Text: "The time from the request until every window of " + humanSeconds(r.w()) +
				" leaves the guest at least the share u, for every u. Lower is better. An eager " +
				"restore is flat: once it runs, nothing disturbs it. A lazy one climbs to the " +
				"time of its last page. A ring ends the curve of a machine that was not seen to " +
				"reach more. The dotted lines are the utilisations of the table.",
		}},
	}
	if len(r.Points()) > 0 {
		list = append(list, struct {
			write func(io.Writer) error
			htmlFigure
		}{r.WriteWork, htmlFigure{
			Title: "How soon the guest gets on",
			Label: "What the guest had done of its own work over time, a curve for each method",
			Text: "What the guest had done of its own work, from the request on. The grey curve is that " +
				"of the warm run, with all of its memory in the page cache: no restore does better. How " +
				"far a curve lies to the right of it is what the restore cost the guest.",
		}})
	}
	if len(r.paces()) > 0 {
		list = append(list, struct {
			write func(io.Writer) error
			htmlFigure
		}{r.WritePaces, htmlFigure{
			Title: "What the application says",
			Label: "The rate at which the guest worked over time, a curve for each method",
			Text: "How fast the guest did its own work, from the request on. The grey band is its " +
				"steady state, one standard deviation to each side. Until a curve begins the " +
				"machine did not run; where it comes back to the band, and keeps up with it, the " +
				"restore is over for the application.",
		}})
	}
	figures := make([]htmlFigure, len(list))
	for i, f := range list {
		svg, err := inlineSVG(f.write)
		if err != nil {
			return nil, err
		}
		figures[i] = f.htmlFigure
		figures[i].SVG = template.HTML(svg) // made here; its texts are escaped as they are drawn
	}
	return figures, nil
}
