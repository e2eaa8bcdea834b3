package wss

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestTouches traces random touches of three vCPUs, loses some events, doubles others, and compares
// the set with the plain list of what happened.
func TestTouches(t *testing.T) {
	const pages = 500
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		tr := NewTouches(pages)
		type first struct {
			at   time.Duration
			vcpu int
		}
		model := make(map[uint64]first)
		exact := NewBitmap(pages)
		late := make([][]Touch, 3) // events of each vCPU that have not come yet
		flush := func() {
			for _, list := range late {
				for _, e := range list {
					tr.Add(e)
				}
			}
			late = make([][]Touch, 3)
		}
		now := time.Duration(0)
		var silent uint64
		var scanned time.Duration
		scan := func() {
			tr.Scanned(exact, now)
			for gfn, m := range model {
				if m.at < 0 { // touched at any time since the last scan
					model[gfn] = first{scanned, NoVCPU}
					silent++
				}
			}
			scanned = now
		}
		for range 300 {
			now += time.Duration(1+rng.IntN(900)) * time.Microsecond
			gfn, vcpu := rng.Uint64N(pages), rng.IntN(3)
			_, known := model[gfn]
			if !known {
				model[gfn] = first{now, vcpu}
				exact.Set(gfn)
			}
			switch {
			case !known && rng.IntN(10) == 0: // its event is lost
				model[gfn] = first{-1, NoVCPU}
			case !known || rng.IntN(4) == 0 && model[gfn].vcpu != NoVCPU:
				late[vcpu] = append(late[vcpu], Touch{GFN: gfn, Count: 1, At: now, VCPU: vcpu})
			}
			if rng.IntN(20) == 0 {
				flush()
				if rng.IntN(3) == 0 {
					scan()
				}
			}
		}
		flush()
		scan()
		set, dropped := tr.Set("test", now, time.Time{})
		if err := set.Validate(pages); err != nil || dropped != 0 {
			t.Fatal(err, dropped)
		}
		if !slices.IsSortedFunc(set.Runs, func(a, b Run) int { return int(a.At - b.At) }) {
			t.Fatal("the runs are not in order of time")
		}
		if !set.Bitmap().Equal(exact) || tr.Pages() != exact.Count() {
			t.Fatalf("%d pages, touched were %d", set.Pages(), exact.Count())
		}
		for _, r := range set.Runs {
			for gfn := r.GFN; gfn < r.End(); gfn++ {
				m := model[gfn]
				// A double may come before the first where it is of another vCPU's ring.
				if d := m.at - r.At; d < 0 || d >= DefaultSlice {
					t.Fatalf("gfn %d: at %v, touched at %v", gfn, r.At, m.at)
				}
			}
		}
		if silent != tr.Silent() {
			t.Fatalf("%d pages without an event, %d counted", silent, tr.Silent())
		}
	}
}

func TestTouchesBounds(t *testing.T) {
	tr := NewTouches(600)
	tr.Add(Touch{GFN: 700, Count: 1})
	tr.Add(Touch{GFN: 599, Count: 1 << 63, At: 1})
	tr.Add(Touch{GFN: 1, Count: 1, At: 2 * time.Millisecond, VCPU: 1})
	tr.Add(Touch{GFN: 0, Count: 512, At: 4 * time.Millisecond, VCPU: 0})
	set, _ := tr.Set("w", time.Second, time.Time{})
	want := []Run{
		{GFN: 599, Count: 1, At: 0, Source: SourceTrace},
		{GFN: 1, Count: 1, At: 2 * time.Millisecond, Source: SourceTrace, VCPU: 1},
		{GFN: 0, Count: 1, At: 4 * time.Millisecond, Source: SourceTrace},
		{GFN: 2, Count: 510, At: 4 * time.Millisecond, Source: SourceTrace},
	}
	if !slices.Equal(set.Runs, want) {
		t.Errorf("got %v, want %v", set.Runs, want)
	}
	if tr.Events() != 4 || tr.Silent() != 0 || tr.Pages() != 513 {
		t.Errorf("%d events, %d silent, %d pages", tr.Events(), tr.Silent(), tr.Pages())
	}
}
