package meter

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Of every amount of work the first report that had reached it is kept: the first ones themselves,
// later ones to within a thousandth.
func TestMarks(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 0))
	begin := time.Unix(1000, 0)
	m := NewMarks()
	m.Begin(begin)
	var all []Mark
	at, total := time.Duration(0), uint64(0)
	for range 50_000 {
		at += time.Duration(rng.IntN(1_000_000))
		n := uint64(rng.IntN(512) + 1)
		total += n
		m.Add(begin.Add(at), n)
		all = append(all, Mark{total, at})
	}
	got := m.List()
	if len(got) > markFine+6*710 { // six doublings of what the first reports told
		t.Errorf("%d marks of %d reports", len(got), len(all))
	}
	if d := cmp.Diff(all[:markFine], got[:markFine]); d != "" {
		t.Error(d)
	}
	i := 0
	for _, mark := range got {
		for all[i].Units < mark.Units {
			i++
		}
		if all[i] != mark {
			t.Fatalf("mark %+v, the guest reported %+v", mark, all[i])
		}
	}
	for i := markFine; i < len(got); i++ {
		if gap := got[i].Units - got[i-1].Units; gap > got[i-1].Units/markFine+512 {
			t.Fatalf("nothing is known between %d and %d", got[i-1].Units, got[i].Units)
		}
	}
}

// The same work at another pace has marks at the same units.
func TestMarksDependOnTheWork(t *testing.T) {
	units := func(pace time.Duration) (list []uint64) {
		rng := rand.New(rand.NewPCG(7, 0))
		m := NewMarks()
		m.Begin(time.Unix(0, 0))
		for i := range 20_000 {
			m.Add(time.Unix(0, 0).Add(time.Duration(i)*pace), uint64(rng.IntN(300)))
		}
		for _, mark := range m.List() {
			list = append(list, mark.Units)
		}
		return list
	}
	if d := cmp.Diff(units(time.Microsecond), units(time.Second)); d != "" {
		t.Error(d)
	}
}

// A clock that was set back before the first instruction.
func TestMarksBeforeTheStart(t *testing.T) {
	m := NewMarks()
	m.Begin(time.Unix(10, 0))
	m.Add(time.Unix(9, 0), 3)
	if d := cmp.Diff([]Mark{{Units: 3}}, m.List()); d != "" {
		t.Error(d)
	}
}
