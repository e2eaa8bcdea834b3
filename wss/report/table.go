package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// lineWidth is what the printed report fits in, where the names of the methods are not long.
const lineWidth = 100

// Table prints the table of the poster to VEE'11 with recall and precision, a table of the times that
// the user and the guest waited, and under them the facts of the run.
func (r Report) Table(w io.Writer) error {
	var b strings.Builder
	writeRows(&b, r.rows(pagesTable))
	if len(r.Methods) > 0 {
		b.WriteByte('\n')
		writeRows(&b, r.rows(timesTable))
		b.WriteByte('\n')
	}
	for _, line := range r.notes() {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// rows are the header in two lines, then a row for each method; where its repetitions differ two more
// have the least and the greatest.
func (r Report) rows(in tableOfRun) [][]string {
	upper, lower := []string{""}, []string{"method"}
	var columns []column
	for _, c := range r.columns() {
		if c.in == in {
			columns = append(columns, c)
			first, second := folded(c.title)
			upper, lower = append(upper, first), append(lower, second)
		}
	}
	rows := [][]string{upper, lower}
	if !slices.ContainsFunc(upper, func(s string) bool { return s != "" }) {
		rows = rows[1:]
	}
	for _, g := range r.methods() {
		median, least, most, wide := []string{g.name}, []string{"  least"}, []string{"  most"}, false
		for _, c := range columns {
			s := c.spread(g)
			low, high := c.bounds(s)
			wide = wide || low != ""
			median, least, most = append(median, c.text(s.median)), append(least, low),
				append(most, high)
		}
		rows = append(rows, median)
		if wide {
			rows = append(rows, least, most)
		}
	}
	return rows
}

// folded is a title in two lines; one that is short, or one word, stands in the lower. A number stays
// with its unit.
func folded(title string) (upper, lower string) {
	const short = 10
	kept := unbroken(title)
	if len([]rune(title)) <= short || !strings.Contains(kept, " ") {
		return "", title
	}
	least := len([]rune(title)) + 1
	for i, c := range kept {
		if c != ' ' {
			continue
		}
		if width := max(len([]rune(kept[:i])), len([]rune(kept[i+1:]))); width < least {
			least, upper, lower = width, kept[:i], kept[i+1:]
		}
	}
	return breakable(upper), breakable(lower)
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

// wrapped are the lines of a text that begins behind a name. Numbers stay with their units, and words
// longer than a line whole.
func wrapped(name, text string) (lines []string) {
	indent := strings.Repeat(" ", len([]rune(name)))
	line, empty := name, true
	for word := range strings.SplitSeq(unbroken(text), " ") {
		if !empty && len([]rune(line))+1+len([]rune(word)) > lineWidth {
			lines = append(lines, breakable(line))
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	return append(lines, breakable(strings.TrimRight(line, " ")))
}

// notes say what the table counts, and how it was measured.
func (r Report) notes() (notes []string) {
	groups := r.methods()
	if len(groups) == 0 {
		return nil
	}
	add := func(text string) { notes = append(notes, wrapped("", text)...) }
	add(fmt.Sprintf("pages of 4 KiB; skipped and lazy are counted over the first %s of the guest; times "+
		"are from the request on, stalls from the guest's first instruction on", r.windows()))
	if len(r.playoutColumns()) > 0 {
		add("prefetched pages with a head start: those of the set, the rest of which came while the guest " +
			"ran; late ones count as lazy")
	}
	if repeated := repetitions(groups); repeated != "" {
		add(repeated + "; medians, under them the least and the most")
	}
	if text := r.warmText(); text != "" {
		add("at N " + r.units() + ": how much later than warm the guest had done its first N. Warm is the " +
			"same machine, restored once with all of its memory in the page cache. " + text)
	}
	if s, origin, ok := r.steady(); ok && len(r.paces()) > 0 {
		add(fmt.Sprintf("recovery: until the guest kept up for %s with one standard deviation below its "+
			"steady state, %s ± %s %s a second, %s", humanSeconds(PaceStretch), number3(s.Mean),
			number3(s.Deviation), r.units(), origin))
	}
	width := 0
	facts := slices.DeleteFunc(slices.Clone(r.Facts), func(f Fact) bool { return f.Detail })
	for _, f := range facts {
		width = max(width, len([]rune(f.Name)))
	}
	for _, f := range facts {
		fill := strings.Repeat(" ", width-len([]rune(f.Name)))
		notes = append(notes, wrapped(f.Name+fill+"  ", f.Value)...)
	}
	return notes
}

func (r Report) units() string {
	paces := r.paces()
	if r.Warm != nil && r.Warm.Pace != nil {
		paces = append(paces, *r.Warm.Pace)
	}
	for _, p := range paces {
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

// spanText prints a length of a window: "100 ms", "1 s".
func spanText(d time.Duration) string {
	if d < time.Second && d%time.Millisecond == 0 {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return humanSeconds(d)
}
