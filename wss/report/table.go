package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Table prints the table of the poster to VEE'11, and beside it recall, precision, the time to the
// guest's first instruction, TTR and the application's own measure; under it the facts of the run.
func (r Report) Table(w io.Writer) error {
	var b strings.Builder
	writeRows(&b, r.rows())
	for _, line := range r.notes() {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// rows are the header, then a row for each method, and a second one where its repetitions differ.
func (r Report) rows() [][]string {
	columns := r.columns()
	header := []string{"method"}
	for _, c := range columns {
		header = append(header, c.title)
	}
	rows := [][]string{header}
	for _, g := range r.methods() {
		medians, spans, wide := []string{g.name}, []string{""}, false
		for _, c := range columns {
			s := c.spread(g)
			span := c.span(s)
			wide = wide || span != ""
			medians, spans = append(medians, c.text(s.median)), append(spans, span)
		}
		rows = append(rows, medians)
		if wide {
			rows = append(rows, spans)
		}
	}
	return rows
}

// writeRows aligns rows: the first column to the left, the others to the right.
func writeRows(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			fill := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i == 0 {
				line.WriteString(c + fill)
			} else {
				line.WriteString("  " + fill + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// notes say what the table counts, and how it was measured.
func (r Report) notes() []string {
	groups := r.methods()
	if len(groups) == 0 {
		return nil
	}
	notes := []string{fmt.Sprintf(
		"pages of 4 KiB; skipped and lazy are counted over the first %s of the guest", r.windows())}
	if repeated := repetitions(groups); repeated != "" {
		notes = append(notes, repeated+"; medians, under them least to greatest")
	}
	if s, origin, ok := r.steady(); ok && len(r.paces()) > 0 {
		notes = append(notes, fmt.Sprintf("recovery: until the guest kept up for %s with one "+
			"standard deviation below its steady state,", humanSeconds(PaceStretch)),
			fmt.Sprintf("%s ± %s %s a second, %s", number3(s.Mean), number3(s.Deviation),
				r.units(), origin))
	}
	width := 0
	for _, f := range r.Facts {
		width = max(width, len([]rune(f.Name)))
	}
	for _, f := range r.Facts {
		fill := strings.Repeat(" ", width-len([]rune(f.Name)))
		notes = append(notes, f.Name+fill+"  "+f.Value)
	}
	return notes
}

func (r Report) units() string {
	for _, p := range r.paces() {
		if p.Units != "" {
			return p.Units
		}
	}
	return "units"
}

// windows are those over which pages were counted.
func (r Report) windows() string {
	var least, greatest time.Duration
	for i, m := range r.Methods {
		if i == 0 {
			least, greatest = m.Window, m.Window
		}
		least, greatest = min(least, m.Window), max(greatest, m.Window)
	}
	a, b := humanSeconds(least), humanSeconds(greatest)
	if a == b {
		return a
	}
	return a + " to " + b
}

// repetitions is "5 repetitions", or how many there were of each method; empty if there were none.
func repetitions(groups []runs) string {
	same, more := true, false
	each := make([]string, len(groups))
	for i, g := range groups {
		n := len(g.all)
		same, more = same && n == len(groups[0].all), more || n > 1
		each[i] = fmt.Sprintf("%d of %s", n, g.name)
	}
	switch {
	case !more:
		return ""
	case same:
		return fmt.Sprintf("%d repetitions of each", len(groups[0].all))
	}
	return "Repetitions: " + strings.Join(each, ", ")
}

func comma(n uint64) string { return humanize.Comma(int64(n)) }

func pages(f float64) string { return humanize.Comma(int64(math.Round(f))) }

func percent(f float64) string {
	if math.IsNaN(f) {
		return "n/a"
	}
	return fmt.Sprintf("%.1f %%", f*100)
}

func secondsText(s float64) string { return humanSeconds(time.Duration(math.Round(s * 1e9))) }

// number3 prints a number with the three digits that matter, more if there are more before the
// point.
func number3(f float64) string {
	if math.Abs(f) >= 100 {
		return humanize.Comma(int64(math.Round(f)))
	}
	return fmt.Sprintf("%.3g", f)
}

// humanSeconds prints three digits that matter and no exponent: "1.67 ms", "0.123 s", "32 s".
func humanSeconds(d time.Duration) string {
	s := d.Seconds()
	switch {
	case s >= 100:
		return fmt.Sprintf("%.0f s", s)
	case s >= 0.01 || s <= 0:
		return fmt.Sprintf("%.3g s", s)
	default:
		return fmt.Sprintf("%.3g ms", s*1000)
	}
}
