package meter

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSeries(t *testing.T) {
	s := NewSeries()
	begin := time.Unix(1000, 0)
	s.Begin(begin)
	at := func(d time.Duration, n uint64) { s.Add(begin.Add(d), n) }
	at(-time.Second, 1) // a clock that was set back
	at(50*time.Millisecond, 2)
	at(350*time.Millisecond, 4)
	want := Progress{Units: "x", Total: 7, SliceSeconds: 0.1, Slices: []uint64{3, 0, 0, 4}}
	if d := cmp.Diff(want, s.Progress("x")); d != "" {
		t.Error(d)
	}
	// Bounded, with nothing lost.
	at(10*time.Minute, 8)
	at(7*24*time.Hour, 16)
	p := s.Progress("x")
	var sum uint64
	for _, n := range p.Slices {
		sum += n
	}
	if len(p.Slices) > seriesMax || sum != 31 || p.Total != 31 || p.Slices[0] != 7 {
		t.Errorf("%d slices of %g s, sum %d, total %d", len(p.Slices), p.SliceSeconds, sum, p.Total)
	}
}
