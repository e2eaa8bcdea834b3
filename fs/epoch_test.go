package fs

import (
	"testing"
	"testing/synctest"
	"time"
)

// What a machine waited for READs while it was recorded is not in the times of its record.
func TestRecordInTheMachinesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newEpoch(100, time.Hour, true, false)
		p.start(time.Now())
		for gfn := range uint64(3) {
			time.Sleep(time.Second) // the machine works
			p.stalls.Begin()
			p.read(source{}, gfn, 1, false, time.Now())
			time.Sleep(5 * time.Second) // and waits
			p.stalls.End()
		}
		set := p.set(p.procs.all(), time.Now())
		for i, r := range set.Runs {
			if want := time.Duration(i+1) * time.Second; (r.At - want).Abs() > time.Microsecond {
				t.Errorf("page %d was touched at %v, want %v", r.GFN, r.At, want)
			}
		}
		if len(set.Runs) != 3 {
			t.Errorf("%d runs", len(set.Runs))
		}
	})
}
