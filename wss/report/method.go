package report

import (
	"slices"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Method is one restore of a checkpoint: what was fetched, what the guest needed, when it waited.
// All times are on a clock whose 0 is the moment at which the restore was asked for.
type Method struct {
	Name       string // "eager", "lazy", "trace", "access", …
	wss.Counts        // of Window after Ready
	// NoSkipped, NoLazy: the count says nothing of this method; tables show n/a, JSON null. See
	// NewMethod.
	NoSkipped, NoLazy bool

	Ready  time.Duration  // the guest's first instruction: the restore time
	End    time.Duration  // end of the observation
	Stalls []wss.Interval // when the guest waited for memory, after Ready
	// Longest is the longest stall after Ready, where it is known better than Stalls have it, which
	// are as sharp as the buckets that they come from; 0: it is not.
	Longest time.Duration

	Pace    *Pace    // how the guest went on with its work, if it was counted; its time 0 is Ready
	Playout *Playout // how the set was brought while the guest ran, if the server says so
}

// Playout is what a server says of a working set whose prefetch goes on while the guest runs: the
// object "playout" of stats.json.
type Playout struct {
	HeadStart float64 `json:"head_start_seconds"` // how long the open waited
	HeadPages uint64  `json:"head_pages"`         // that had come then
	TailPages uint64  `json:"tail_pages"`         // that were to follow
	Margin    float64 `json:"margin"`
	Rate      float64 `json:"rate_bytes_per_second"`
	// The least time by which a page was planned to come, and came, before its recorded touch; nil: no
	// page that followed had a time.
	PlannedSlack *float64 `json:"planned_slack_seconds"`
	RealSlack    *float64 `json:"real_slack_seconds"`
	// LatePages came after the guest had wanted them.
	LatePages uint64  `json:"late_pages"`
	LateMax   float64 `json:"late_seconds_max"`
	LateTotal float64 `json:"late_seconds_total"`
}

// The methods that a comparison knows, in the order in which a report shows them. The raw ones
// restore from the image as a plain file, without thaw.
const (
	MethodEager    = "eager"
	MethodLazy     = "lazy"
	MethodAccess   = "access"
	MethodTrace    = "trace"
	MethodFull     = "trace-full"
	MethodUnion    = "union"
	MethodRawEager = "raw-eager"
	MethodRawLazy  = "raw-lazy"
)

// methodOrder is that of the poster to VEE'11, then the methods that are not on it.
func methodOrder() []string {
	return []string{MethodEager, MethodLazy, MethodAccess, MethodTrace, MethodFull, MethodUnion,
		MethodRawEager, MethodRawLazy}
}

// NewMethod makes a Method and sets what is not applicable to it, as on the poster to VEE'11:
// an eager restore brings everything, so it has no skipped and no lazy pages; a lazy one brings
// nothing that could be skipped.
func NewMethod(name string, c wss.Counts, ready, end time.Duration, stalls []wss.Interval) Method {
	eager := name == MethodEager || name == MethodRawEager
	lazy := name == MethodLazy || name == MethodRawLazy
	return Method{
		Name: name, Counts: c, Ready: ready, End: end, Stalls: stalls,
		NoSkipped: eager || lazy, NoLazy: eager,
	}
}

// TTR is Timeline.TTR of this restore.
func (m Method) TTR(w time.Duration, u float64) (time.Duration, bool) {
	return TTR(m.Stalls, m.Ready, m.End, w, u)
}

// TTRCurve is Timeline.TTRCurve of this restore.
func (m Method) TTRCurve(w time.Duration) Curve {
	return NewTimeline(m.Stalls).TTRCurve(m.Ready, m.End, w)
}

// TotalStall is how long the guest waited for memory, from its first instruction on.
func (m Method) TotalStall() time.Duration {
	return NewTimeline(m.Stalls).Stalled(m.Ready, m.End)
}

// LongestStall is the longest time without a break for which it did.
func (m Method) LongestStall() time.Duration {
	if m.Longest > 0 {
		return m.Longest
	}
	return NewTimeline(m.Stalls).Longest(m.Ready, m.End)
}

// Reached is when the guest had done so many units of its work, counted from when the restore was
// asked for; see Pace.Reached. Without a pace it was not seen.
func (m Method) Reached(units uint64) (time.Duration, bool) {
	if m.Pace == nil {
		return m.Ready, false
	}
	x, ok := m.Pace.Reached(units)
	return m.Ready + x, ok
}

// Recovery is when the application had its pace back, counted from when the restore was asked for;
// see Pace.Recovery. Without a pace it was not seen.
func (m Method) Recovery(s Steady, stretch time.Duration) (time.Duration, bool) {
	if m.Pace == nil {
		return m.Ready, false
	}
	x, ok := m.Pace.Recovery(s, stretch)
	return m.Ready + x, ok
}

// runs are the repetitions of one method, in the order in which they were made.
type runs struct {
	name string
	all  []Method
}

// methods groups the repetitions, in the order of a report.
func (r Report) methods() []runs {
	var groups []runs
	for _, m := range r.Methods {
		i := slices.IndexFunc(groups, func(g runs) bool { return g.name == m.Name })
		if i < 0 {
			i = len(groups)
			groups = append(groups, runs{name: m.Name})
		}
		groups[i].all = append(groups[i].all, m)
	}
	order := methodOrder()
	place := func(g runs) int {
		if i := slices.Index(order, g.name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(groups, func(a, b runs) int { return place(a) - place(b) })
	return groups
}

// typical is the run that figures show: the one whose TTR is the median, of two the lower; what was
// not seen to become responsive is last.
func (r Report) typical(g runs) Method {
	sorted := slices.Clone(g.all)
	slices.SortStableFunc(sorted, func(a, b Method) int {
		x, xOK := a.TTR(r.w(), r.u())
		y, yOK := b.TTR(r.w(), r.u())
		return outcome{float64(x), xOK}.compare(outcome{float64(y), yOK})
	})
	return sorted[(len(sorted)-1)/2]
}
