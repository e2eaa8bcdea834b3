package wss

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// The window and the utilisation that a report states a TTR for if nothing else is said: VEE'11
// uses 1 s throughout, and 70 to 80 %.
const (
	DefaultTTRWindow      = time.Second
	DefaultTTRUtilisation = 0.8
)

// Method is one restore of a checkpoint: what was fetched, what the guest needed, when it waited.
// All times are on a clock whose 0 is the moment at which the restore was asked for.
type Method struct {
	Name   string // "eager", "lazy", "trace", "access", …
	Counts        // of Window after Ready
	// NoSkipped, NoLazy: the count says nothing of this method; tables show n/a, JSON null. See
	// NewMethod.
	NoSkipped, NoLazy bool

	Ready  time.Duration // the guest's first instruction: the restore time
	End    time.Duration // end of the observation
	Stalls []Interval    // when the guest waited for memory, after Ready
}

// NewMethod makes a Method and sets what is not applicable to it, as the poster's table has it:
// an eager restore brings everything, so it has no skipped and no lazy pages; a lazy one brings
// nothing that could be skipped.
func NewMethod(name string, c Counts, ready, end time.Duration, stalls []Interval) Method {
	return Method{
		Name: name, Counts: c, Ready: ready, End: end, Stalls: stalls,
		NoSkipped: name == "eager" || name == "lazy", NoLazy: name == "eager",
	}
}

// TTR is Timeline.TTR of this restore.
func (m Method) TTR(w time.Duration, u float64) (time.Duration, bool) {
	return TTR(m.Stalls, m.Ready, m.End, w, u)
}

// Report is a comparison of several restores of one checkpoint. The methods may have been run in any
// order; they are shown in the poster's: eager, lazy, access, trace, then all others as they come.
type Report struct {
	GuestPages  uint64
	Methods     []Method
	Window      time.Duration // w of the TTR; 0: DefaultTTRWindow
	Utilisation float64       // u of the TTR; 0: DefaultTTRUtilisation
}

func (r Report) w() time.Duration {
	if r.Window <= 0 {
		return DefaultTTRWindow
	}
	return r.Window
}

func (r Report) u() float64 {
	if r.Utilisation <= 0 {
		return DefaultTTRUtilisation
	}
	return r.Utilisation
}

// ordered returns the methods in the poster's order.
func (r Report) ordered() []Method {
	poster := []string{"eager", "lazy", "access", "trace"}
	place := func(m Method) int {
		if i := slices.Index(poster, m.Name); i >= 0 {
			return i
		}
		return len(poster)
	}
	methods := slices.Clone(r.Methods)
	slices.SortStableFunc(methods, func(a, b Method) int { return place(a) - place(b) })
	return methods
}

// Table prints the poster's table, and beside it the time to the guest's first instruction, TTR,
// recall and precision.
func (r Report) Table(w io.Writer) error {
	header := []string{"method", "prefetched", "skipped", "lazy", "restore",
		fmt.Sprintf("TTR(%s, %.0f %%)", humanSeconds(r.w()), r.u()*100), "recall", "precision"}
	rows := [][]string{header}
	for _, m := range r.ordered() {
		rows = append(rows, r.row(m))
	}
	width := make([]int, len(header))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, c := range row {
			fill := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i == 0 {
				b.WriteString(c + fill)
			} else {
				b.WriteString("  " + fill + c)
			}
		}
		b.WriteByte('\n')
	}
	b.WriteString(r.note())
	_, err := io.WriteString(w, b.String())
	return err
}

func (r Report) row(m Method) []string {
	row := []string{m.Name, comma(m.Prefetched), na(m.NoSkipped, m.Skipped),
		na(m.NoLazy, m.Lazy), humanSeconds(m.Ready)}
	if ttr, ok := m.TTR(r.w(), r.u()); ok {
		row = append(row, humanSeconds(ttr))
	} else {
		row = append(row, "> "+humanSeconds(ttr))
	}
	if m.NoSkipped {
		return append(row, "n/a", "n/a")
	}
	return append(row, percent(m.Recall()), percent(m.Precision()))
}

// note says over what was counted.
func (r Report) note() string {
	var windows []string
	for _, m := range r.ordered() {
		w := humanSeconds(m.Window)
		if len(windows) == 0 || windows[len(windows)-1] != w {
			windows = append(windows, w)
		}
	}
	if len(windows) == 0 {
		return ""
	}
	return fmt.Sprintf("pages of 4 KiB; skipped and lazy are counted over the first %s of the guest\n",
		strings.Join(windows, ", "))
}

// Table prints a report of the methods with the default window and utilisation.
func Table(w io.Writer, methods []Method) error { return Report{Methods: methods}.Table(w) }

// methodJSON and reportJSON are the forms in JSON; fields are only ever added.
type methodJSON struct {
	Method        string   `json:"method"`
	Prefetched    uint64   `json:"prefetched"`
	Skipped       *uint64  `json:"skipped"`
	Lazy          *uint64  `json:"lazy"`
	Restore       float64  `json:"restore_seconds"`
	TTR           *float64 `json:"ttr_seconds"` // null: was not seen to become responsive
	TTRAbove      *float64 `json:"ttr_above_seconds,omitempty"`
	Recall        *float64 `json:"recall"`
	Precision     *float64 `json:"precision"`
	CountedWindow float64  `json:"window_seconds"`
	Observed      float64  `json:"observed_seconds"`
	Stalled       float64  `json:"stall_seconds"` // after the first instruction
}

type reportJSON struct {
	GuestPages  uint64       `json:"guest_pages"`
	Window      float64      `json:"ttr_window_seconds"`
	Utilisation float64      `json:"ttr_utilisation"`
	Methods     []methodJSON `json:"methods"`
}

// MarshalJSON implements json.Marshaler: the JSON of `thaw demo`.
func (r Report) MarshalJSON() ([]byte, error) {
	j := reportJSON{r.GuestPages, r.w().Seconds(), r.u(), make([]methodJSON, len(r.Methods))}
	for i, m := range r.ordered() {
		j.Methods[i] = r.method(m)
	}
	return json.Marshal(j)
}

func (r Report) method(m Method) methodJSON {
	j := methodJSON{
		Method: m.Name, Prefetched: m.Prefetched,
		Restore: m.Ready.Seconds(), CountedWindow: m.Counts.Window.Seconds(),
		Observed: m.End.Seconds(),
		Stalled:  NewTimeline(m.Stalls).Stalled(m.Ready, m.End).Seconds(),
	}
	if !m.NoSkipped {
		j.Skipped = &m.Skipped
		j.Recall, j.Precision = finite(m.Recall()), finite(m.Precision())
	}
	if !m.NoLazy {
		j.Lazy = &m.Lazy
	}
	ttr, ok := m.TTR(r.w(), r.u())
	seconds := ttr.Seconds()
	if ok {
		j.TTR = &seconds
	} else {
		j.TTRAbove = &seconds
	}
	return j
}

func finite(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

func comma(n uint64) string { return humanize.Comma(int64(n)) }

func na(not bool, n uint64) string {
	if not {
		return "n/a"
	}
	return comma(n)
}

func percent(f float64) string {
	if math.IsNaN(f) {
		return "n/a"
	}
	return fmt.Sprintf("%.1f %%", f*100)
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
