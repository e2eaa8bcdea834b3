package report

import (
	"math"
	"sort"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Pace is the application's own measure: how many units of its work (frames, transactions) a guest
// did in each slice of time since its first instruction. VEE'11 judges restores by it (sections 4
// and 5): MPlayer is back when it shows 30 frames a second again, SPECjbb when it does 8307 ± 440
// operations a second.
type Pace struct {
	Units  string        // what is counted, in the plural
	Slice  time.Duration // width of a slice
	Counts []uint64      // units in each slice
	Ran    time.Duration // how long the guest ran; slices that Counts lacks up to here had none
	Marks  []Mark        // ascending; nil: only slices are known
}

// Mark is a moment at which so many units had been done since the guest's first instruction.
type Mark struct {
	Units uint64
	At    time.Duration
}

// NewPace makes a Pace of a series as a machine reports it.
func NewPace(units string, sliceSeconds float64, counts []uint64, ran time.Duration) Pace {
	seconds := max(min(sliceSeconds, wss.MaxTime.Seconds()), 0)
	return Pace{Units: units, Slice: time.Duration(math.Round(seconds * 1e9)), Counts: counts, Ran: ran}
}

// What a Report asks of a Pace.
const (
	PaceWindow  = time.Second     // whose rates are compared, at most
	PaceStretch = 3 * time.Second // for which a pace must last
)

// rounding is the share that is only the error of floating point.
const rounding = 1e-9

// Total is the number of units done.
func (p Pace) Total() (n uint64) {
	for _, c := range p.Counts {
		n += c
	}
	return n
}

// PerSecond is the rate over the whole run.
func (p Pace) PerSecond() float64 {
	if p.Ran <= 0 {
		return 0
	}
	return float64(p.Total()) / p.Ran.Seconds()
}

// Reached is when the guest had done so many units, exact as its marks are: the time of the first
// report by which it had. Guests that report every 256 transactions had done 1,000 of them by the
// report of 1,024, after every restore. If the run ended before that, ok is false and the time is a
// lower bound.
func (p Pace) Reached(units uint64) (at time.Duration, ok bool) {
	i := sort.Search(len(p.Marks), func(i int) bool { return p.Marks[i].Units >= units })
	if i == len(p.Marks) {
		return p.Ran, false
	}
	return p.Marks[i].At, true
}

// Within is the number of units done in [from, to). A slice that lies in it in part counts in part.
func (p Pace) Within(from, to time.Duration) (units float64) {
	if p.Slice <= 0 {
		return 0
	}
	from, to = max(from, 0), min(to, p.Slice*time.Duration(len(p.Counts)))
	for at := from / p.Slice * p.Slice; at < to; at += p.Slice {
		part := min(at+p.Slice, to) - max(at, from)
		units += float64(p.Counts[at/p.Slice]) * float64(part) / float64(p.Slice)
	}
	return units
}

// rates are the rates in units a second of the whole windows of [from, Ran), the last ending there.
func (p Pace) rates(from, window time.Duration) (rates []float64) {
	if window <= 0 {
		return nil
	}
	for end := p.Ran; end-window >= max(from, 0); end -= window {
		rates = append(rates, p.Within(end-window, end)/window.Seconds())
	}
	return rates
}

// Steady is the pace of a guest that nothing disturbs.
type Steady struct {
	Mean      float64       // units a second
	Deviation float64       // standard deviation of windows, units a second
	Window    time.Duration // length of a window
	Windows   int           // how many there were
}

// SteadyOf is the steady state that the last part of each run shows, up to tail of it; 0: the whole
// runs, as for a baseline that was never disturbed. ok is false if they have no two windows, or
// nothing was done in them.
func SteadyOf(window, tail time.Duration, runs ...Pace) (s Steady, ok bool) {
	var rates []float64
	for _, p := range runs {
		from := time.Duration(0)
		if tail > 0 {
			from = p.Ran - tail
		}
		rates = append(rates, p.rates(from, window)...)
	}
	s = Steady{Window: window, Windows: len(rates)}
	if len(rates) < 2 {
		return s, false
	}
	for _, r := range rates {
		s.Mean += r
	}
	s.Mean /= float64(len(rates))
	for _, r := range rates {
		s.Deviation += (r - s.Mean) * (r - s.Mean) / float64(len(rates)-1)
	}
	s.Deviation = math.Sqrt(s.Deviation)
	if s.Deviation < rounding*s.Mean {
		s.Deviation = 0
	}
	return s, s.Mean > 0
}

// Recovery is when the guest had its pace back, from its first instruction on: the earliest slice
// from which on, for a stretch of time, it kept up with one standard deviation below the steady
// state. To keep up is to have done, by the end of each window, as much as that rate asks for since
// then: of the windows of a steady guest one in six is below it by chance, and should not count as
// a relapse. What is done faster than one deviation above counts as that, so that a burst does not
// make up for a pause after it. A deviation is at least one unit a window: no count is sharper.
//
// If the run ends before such a stretch does, ok is false and the time is a lower bound.
func (p Pace) Recovery(s Steady, stretch time.Duration) (x time.Duration, ok bool) {
	if p.Slice <= 0 || s.Window <= 0 {
		return 0, false
	}
	stretch = max(stretch, s.Window)
	for ; x+stretch <= p.Ran; x += p.Slice {
		if p.keepsUp(s, x, stretch) {
			return x, true
		}
	}
	return x, false
}

// keepsUp says whether the guest keeps up with the steady state for a stretch from a time on.
func (p Pace) keepsUp(s Steady, from, stretch time.Duration) bool {
	mean := s.Mean * s.Window.Seconds()
	deviation := max(s.Deviation*s.Window.Seconds(), 1)
	least, most := mean-deviation, mean+deviation
	var ahead float64
	for at := from; at+s.Window <= from+stretch; at += s.Window {
		ahead += min(p.Within(at, at+s.Window), most) - least
		if ahead < -rounding*mean {
			return false
		}
	}
	return true
}
