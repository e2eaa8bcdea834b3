package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/thawfs/thaw/wss"
)

func TestSpread(t *testing.T) {
	seen := func(f float64) outcome { return outcome{f, true} }
	above := func(f float64) outcome { return outcome{f, false} }
	none := seen(math.NaN())
	for _, c := range []struct {
		name                    string
		all                     []outcome
		median, least, greatest outcome
		narrow                  bool
	}{
		{"one", []outcome{seen(3)}, seen(3), seen(3), seen(3), true},
		{"odd", []outcome{seen(3), seen(1), seen(2)}, seen(2), seen(1), seen(3), false},
		{"even", []outcome{seen(4), seen(1), seen(2), seen(9)}, seen(3), seen(1), seen(9), false},
		{"one not seen", []outcome{above(1), seen(5), seen(4)}, seen(5), seen(4), above(1), false},
		{"half of them not seen", []outcome{above(1), seen(5)}, above(1), seen(5), above(1), false},
		{"not applicable to one", []outcome{none, seen(5)}, seen(5), seen(5), seen(5), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := append([]outcome(nil), c.all...)
			rand.Shuffle(len(given), func(i, j int) { given[i], given[j] = given[j], given[i] })
			s := spreadOf(given)
			if s.median != c.median || s.least != c.least || s.greatest != c.greatest ||
				s.narrow() != c.narrow {
				t.Errorf("%+v", s)
			}
		})
	}
	for _, all := range [][]outcome{nil, {none, none}} {
		if s := spreadOf(all); !math.IsNaN(s.median.value) || s.n != 0 {
			t.Errorf("%v: %+v", all, s)
		}
	}
}

func TestReportOrder(t *testing.T) {
	var r Report
	for _, name := range []string{"mine", "raw-lazy", "trace", "lazy", "union", "raw-eager", "access",
		"eager", "trace", "other"} {
		r.Methods = append(r.Methods, NewMethod(name, wss.Counts{}, 0, 0, nil))
	}
	var got []string
	for _, g := range r.methods() {
		got = append(got, g.name)
		first := g.all[0]
		eager := strings.HasSuffix(g.name, "eager")
		lazy := strings.HasSuffix(g.name, "lazy")
		if first.NoLazy != eager || first.NoSkipped != (eager || lazy) {
			t.Errorf("%+v", first)
		}
	}
	want := "[eager lazy access trace union raw-eager raw-lazy mine other]"
	if fmt.Sprint(got) != want || len(r.methods()[3].all) != 2 {
		t.Errorf("%v", got)
	}
}
