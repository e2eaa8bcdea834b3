package wss

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestAgree(t *testing.T) {
	server := NewTimeline(in(100, 200, 1500, 1600))
	vmm := NewTimeline(in(90, 210, 1500, 1620, 5000, 6000)) // the last lies outside
	got := Agree(vmm, server, 0, 3*sec, sec, Tolerance{PerRequest: 20 * ms, Requests: 2})
	want := Agreement{A: 240 * ms, B: 200 * ms, Both: 200 * ms, Difference: 40 * ms,
		Share: 40. / 240, Allowed: 40 * ms, Window: sec, Windows: 3, Mean: 40 * ms / 3,
		Worst: 20 * ms}
	if got != want {
		t.Errorf("%+v", got)
	}
	if !got.OK() || !strings.Contains(got.String(), "within the stated error of 0.04 s") {
		t.Errorf("%v", got)
	}
	got.Allowed--
	if got.OK() || !strings.Contains(got.String(), "beyond") {
		t.Errorf("%v", got)
	}
	none := Agree(NewTimeline(nil), NewTimeline(nil), 0, sec, 0, Tolerance{Share: 0.01})
	if none != (Agreement{}) || !none.OK() {
		t.Errorf("%+v", none)
	}
}

// A log's buckets are a coarser view of the same stalls: they agree within the width of two of them
// in the whole and in every window.
func TestLogsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	for range 100 {
		exact := NewTimeline(randomStalls(rng))
		log := NewStallLog(time.Time{})
		for _, i := range exact.Intervals() {
			log.keep(i.Start, i.End)
		}
		coarse := NewTimeline(log.snapshot(20 * sec).Intervals(time.Time{}))
		from := time.Duration(rng.IntN(5000))*ms + 300*time.Microsecond
		got := Agree(exact, coarse, from, from+6*sec, sec/2, Tolerance{Edge: time.Millisecond})
		if !got.OK() || got.Worst > 2*time.Millisecond {
			t.Fatalf("%v", got)
		}
		back := Agree(coarse, exact, from, from+6*sec, sec/2, Tolerance{Edge: time.Millisecond})
		if back.Difference != -got.Difference || back.Both != got.Both || back.Worst != got.Worst {
			t.Fatalf("%v, the other way round %v", got, back)
		}
		if got.Both > min(got.A, got.B) {
			t.Fatalf("%+v", got)
		}
	}
}
