package wss

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRecorderCoalesces(t *testing.T) {
	r := NewRecorder(RecorderOptions{
		ImagePages: 100, Source: SourceRead, Way: "test", Window: sec, MaxRuns: 8,
	})
	us := time.Microsecond
	r.AddRun(10, 1, 0, 0)
	r.AddRun(11, 1, 999*us, 0)    // ascending neighbour within the slice of 1 ms
	r.AddRun(12, 1, 1000*us, 0)   // too late for that run: its time would be wrong
	r.AddRun(13, 1, 1001*us, 1)   // another vCPU
	r.AddRun(12, 1, 1002*us, 1)   // touched before
	r.AddRun(15, 1, 1003*us, 1)   // a gap
	r.AddRun(14, 1, 1004*us, 1)   // descending
	r.AddRun(20, 3, 1005500, -7)  // a vCPU that cannot be; half a microsecond
	r.AddRun(98, 10, 1006*us, -1) // beyond the image
	r.AddRun(50, 1, 1001*ms, 0)   // beyond the window
	want := []Run{
		{10, 2, 0, SourceRead, 0},
		{12, 1, 1000 * us, SourceRead, 0},
		{13, 1, 1001 * us, SourceRead, 1},
		{15, 1, 1003 * us, SourceRead, 1},
		{14, 1, 1004 * us, SourceRead, 1},
		{20, 3, 1005 * us, SourceRead, NoVCPU},
		{98, 2, 1006 * us, SourceRead, NoVCPU},
	}
	created := time.Unix(1, 0).UTC()
	s := r.Set(5*sec, created)
	if d := cmp.Diff(&Set{100, sec, "test", created, want, nil}, s); d != "" {
		t.Error(d)
	}
	if err := s.Validate(100); err != nil {
		t.Error(err)
	}
	if r.Pages() != s.Pages() || r.Dropped() != 0 {
		t.Errorf("Pages %d, set has %d, dropped %d", r.Pages(), s.Pages(), r.Dropped())
	}
	r.AddRun(60, 1, 2*ms, 0)
	r.AddRun(70, 1, 2*ms, 0)
	r.AddRun(80, 1, 2*ms, 0) // the ninth run and a tenth: the record is full
	if r.Dropped() != 2 || len(r.Set(sec, created).Runs) != 8 {
		t.Errorf("dropped %d of a full record", r.Dropped())
	}
	if len(s.Runs) != 7 {
		t.Error("an earlier set grew")
	}
}

// Whatever order touches come in, the record holds each page once, and the first touch of each.
func TestRecorderAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := NewRecorder(RecorderOptions{ImagePages: 64, Source: SourceTrace})
		first, order := map[uint64]time.Duration{}, []uint64(nil)
		at := time.Duration(0)
		for gfn := uint64(0); len(order) < 40; {
			if gfn = (gfn + 1) % 64; rng.IntN(3) == 0 {
				gfn = rng.Uint64N(64)
			}
			at += time.Duration(rng.IntN(400)) * time.Microsecond
			if _, ok := first[gfn]; !ok {
				first[gfn] = at
				order = append(order, gfn)
			}
			r.AddRun(gfn, 1, at, 0)
		}
		s := r.Set(at, time.Time{})
		if err := s.Validate(64); err != nil {
			t.Fatal(err)
		}
		i := 0
		for _, run := range s.Runs {
			for gfn := run.GFN; gfn < run.End(); gfn++ {
				if gfn != order[i] || first[gfn] < run.At || first[gfn]-run.At >= DefaultSlice {
					t.Fatalf("seed %d: gfn %d at %v, want %d at %v",
						seed, gfn, run.At, order[i], first[gfn])
				}
				i++
			}
		}
		if i != len(order) {
			t.Fatalf("seed %d: %d pages, want %d", seed, i, len(order))
		}
	}
}

func TestRecorderConcurrent(t *testing.T) {
	r := NewRecorder(RecorderOptions{ImagePages: 1000, Source: SourceRead})
	var wg sync.WaitGroup
	for vcpu := range 4 {
		wg.Go(func() {
			for gfn := range uint64(1000) {
				r.AddRun(gfn, 1, time.Duration(gfn), vcpu)
			}
		})
	}
	wg.Wait()
	s := r.Set(sec, time.Time{})
	if err := s.Validate(1000); err != nil || s.Pages() != 1000 {
		t.Errorf("%d pages, %v", s.Pages(), err)
	}
}

func BenchmarkRecorder(b *testing.B) {
	r := NewRecorder(RecorderOptions{ImagePages: 1 << 20, Source: SourceRead})
	b.ReportAllocs()
	gfn := uint64(0)
	for b.Loop() {
		r.AddRun(gfn*7919%(1<<20), 1, time.Duration(gfn), NoVCPU)
		gfn++
	}
}
