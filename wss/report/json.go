package report

import (
	"encoding/json"
	"math"
	"time"
)

// The forms in JSON; fields are only ever added. What a method has beside its name are medians;
// spread has the least and the greatest of each where they differ (null: was not seen), runs has
// every repetition, with what its figures were computed from.
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
	Longest       float64  `json:"longest_stall_seconds"`
	HeadStart     *float64 `json:"head_start_seconds,omitempty"`
	LatePages     *uint64  `json:"late_pages,omitempty"`

	TTRs   []ttrJSON             `json:"ttr"`
	Delays []delayJSON           `json:"delays,omitempty"`
	Pace   *paceJSON             `json:"pace,omitempty"`
	Spread map[string][]*float64 `json:"spread,omitempty"`
	Runs   []runJSON             `json:"runs,omitempty"`
}

// ttrJSON is a TTR at one utilisation.
type ttrJSON struct {
	Window float64  `json:"window_seconds"`
	U      float64  `json:"u"`
	TTR    *float64 `json:"seconds"`
	Above  *float64 `json:"above_seconds,omitempty"`
}

// delayJSON is how much later than in the warm run so many units had been done.
type delayJSON struct {
	Units uint64   `json:"units"`
	Delay *float64 `json:"seconds"` // null: they were not done, or not counted
	Above *float64 `json:"above_seconds,omitempty"`
}

// warmJSON is the warm run; times are from the request on.
type warmJSON struct {
	Restore float64    `json:"restore_seconds"`
	Stalled float64    `json:"stall_seconds"`
	Units   string     `json:"units"`
	Done    []doneJSON `json:"done"`
}

// doneJSON is when so many units had been done.
type doneJSON struct {
	Units   uint64  `json:"units"`
	Seconds float64 `json:"seconds"`
}

// paceJSON is the application's own measure.
type paceJSON struct {
	Units         string   `json:"units"`
	FirstSecond   float64  `json:"first_second"`
	PerSecond     float64  `json:"per_second"`
	Recovery      *float64 `json:"recovery_seconds"` // null: was not seen
	RecoveryAbove *float64 `json:"recovery_above_seconds,omitempty"`
}

// runJSON is one repetition: its own figures, and what they were computed from.
type runJSON struct {
	methodJSON
	Stalls [][2]int64   `json:"stalls_us"`           // start and end
	Curve  [][2]float64 `json:"ttr_curve,omitempty"` // u and seconds, for each percent
	Slices *slicesJSON  `json:"progress,omitempty"`
	// Playout is what the server said of a set that came while the guest ran.
	Playout *Playout `json:"playout,omitempty"`
}

// slicesJSON is a Pace as it was counted.
type slicesJSON struct {
	Units   string   `json:"units"`
	Seconds float64  `json:"slice_seconds"`
	Ran     float64  `json:"run_seconds"`
	Slices  []uint64 `json:"slices"`
	// Marks are pairs of units and microseconds since the first instruction, up to the last of Points.
	Marks [][2]uint64 `json:"marks_us,omitempty"`
}

type steadyJSON struct {
	Mean      float64 `json:"per_second"`
	Deviation float64 `json:"deviation"`
	Window    float64 `json:"window_seconds"`
	Windows   int     `json:"windows"`
	Stretch   float64 `json:"stretch_seconds"`
}

type reportJSON struct {
	GuestPages  uint64       `json:"guest_pages"`
	Window      float64      `json:"ttr_window_seconds"`
	Utilisation float64      `json:"ttr_utilisation"`
	Methods     []methodJSON `json:"methods"`
	Title       string       `json:"title,omitempty"`
	Facts       []Fact       `json:"facts,omitempty"`
	Steady      *steadyJSON  `json:"steady,omitempty"`
	Warm        *warmJSON    `json:"warm,omitempty"`
}

// MarshalJSON implements json.Marshaler: the JSON of `thaw demo`.
func (r Report) MarshalJSON() ([]byte, error) {
	groups := r.methods()
	j := reportJSON{r.GuestPages, r.w().Seconds(), r.u(), make([]methodJSON, len(groups)),
		r.Title, r.Facts, nil, r.warmJSON()}
	if s, _, ok := r.steady(); ok {
		j.Steady = &steadyJSON{s.Mean, s.Deviation, s.Window.Seconds(), s.Windows,
			PaceStretch.Seconds()}
	}
	for i, g := range groups {
		j.Methods[i] = r.method(g)
		for _, m := range g.all {
			j.Methods[i].Runs = append(j.Methods[i].Runs, r.run(m))
		}
	}
	return json.Marshal(j)
}

// warmJSON is the warm run; nil without one whose work was counted.
func (r Report) warmJSON() *warmJSON {
	points := r.Points()
	if len(points) == 0 {
		return nil
	}
	j := &warmJSON{Restore: r.Warm.Ready.Seconds(), Stalled: r.Warm.TotalStall().Seconds(),
		Units: r.units()}
	for _, n := range points {
		at, _ := r.Warm.Reached(n)
		j.Done = append(j.Done, doneJSON{n, at.Seconds()})
	}
	return j
}

// method are the medians of the repetitions.
func (r Report) method(g runs) methodJSON {
	median := map[string]outcome{}
	j := methodJSON{Method: g.name, Spread: map[string][]*float64{}}
	for _, c := range r.columns() {
		s := c.spread(g)
		median[c.key] = s.median
		if !s.narrow() && s.n > 0 {
			j.Spread[c.key] = []*float64{seen(s.least), seen(s.greatest)}
		}
	}
	j.Prefetched = uint64(math.Round(median["prefetched"].value))
	j.Skipped, j.Lazy = whole(median["skipped"]), whole(median["lazy"])
	j.Recall, j.Precision = finite(median["recall"].value), finite(median["precision"].value)
	j.Restore = median["restore_seconds"].value
	j.TTR, j.TTRAbove = seenOrAbove(median[ttrKey(r.u())])
	for _, t := range r.ttrs() {
		ttr := ttrJSON{Window: t.w.Seconds(), U: t.u}
		ttr.TTR, ttr.Above = seenOrAbove(median[t.key])
		j.TTRs = append(j.TTRs, ttr)
	}
	j.Longest, j.Stalled = median["longest_stall_seconds"].value, median["total_stall_seconds"].value
	for _, n := range r.Points() {
		delay := delayJSON{Units: n}
		delay.Delay, delay.Above = seenOrAbove(median[delayKey(n)])
		j.Delays = append(j.Delays, delay)
	}
	if late, ok := median["late_pages"]; ok {
		j.HeadStart, j.LatePages = finite(median["head_start_seconds"].value), whole(late)
	}
	of := func(f func(Method) time.Duration) float64 {
		all := make([]outcome, len(g.all))
		for i, m := range g.all {
			all[i] = outcome{f(m).Seconds(), true}
		}
		return spreadOf(all).median.value
	}
	j.CountedWindow = of(func(m Method) time.Duration { return m.Window })
	j.Observed = of(func(m Method) time.Duration { return m.End })
	if rate, ok := median["per_second"]; ok && !math.IsNaN(rate.value) {
		j.Pace = &paceJSON{Units: r.units(), FirstSecond: median["first_second"].value,
			PerSecond: rate.value}
		if recovery, ok := median["recovery_seconds"]; ok {
			j.Pace.Recovery, j.Pace.RecoveryAbove = seenOrAbove(recovery)
		}
	}
	return j
}

// run is one repetition.
func (r Report) run(m Method) runJSON {
	j := runJSON{methodJSON: r.method(runs{m.Name, []Method{m}}),
		Stalls: make([][2]int64, len(m.Stalls))}
	for i, s := range m.Stalls {
		j.Stalls[i] = [2]int64{s.Start.Microseconds(), s.End.Microseconds()}
	}
	for _, p := range m.TTRCurve(r.w()).Sample(100) {
		j.Curve = append(j.Curve, [2]float64{p.U, p.TTR.Seconds()})
	}
	j.Playout = m.Playout
	if p := m.Pace; p != nil {
		j.Slices = &slicesJSON{p.Units, p.Slice.Seconds(), p.Ran.Seconds(), p.Counts, r.marks(*p)}
	}
	return j
}

// marks are those of a pace up to the last point: what the delays were computed from.
func (r Report) marks(p Pace) (pairs [][2]uint64) {
	points := r.Points()
	if len(points) == 0 {
		return nil
	}
	for _, m := range p.Marks {
		pairs = append(pairs, [2]uint64{m.Units, uint64(m.At.Microseconds())})
		if m.Units >= points[len(points)-1] {
			break
		}
	}
	return pairs
}

// seenOrAbove is what was seen, or the bound that it lies above.
func seenOrAbove(o outcome) (value, above *float64) {
	if o.ok {
		return finite(o.value), nil
	}
	return nil, finite(o.value)
}

func seen(o outcome) *float64 {
	value, _ := seenOrAbove(o)
	return value
}

func whole(o outcome) *uint64 {
	if math.IsNaN(o.value) {
		return nil
	}
	n := uint64(math.Round(o.value))
	return &n
}

func finite(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}
