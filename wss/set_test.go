package wss

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func run(gfn, count uint64) Run {
	return Run{GFN: gfn, Count: count, Source: SourceRead, VCPU: NoVCPU}
}

func TestValidate(t *testing.T) {
	with := func(change func(*Set)) *Set {
		s := &Set{ImagePages: 100, Runs: []Run{run(10, 5), run(0, 5), run(15, 1)}}
		change(s)
		return s
	}
	for _, c := range []struct {
		name string
		set  *Set
		want string // part of the error; "": valid
	}{
		{"good", with(func(*Set) {}), ""},
		{"one page from two sources",
			with(func(s *Set) { s.Runs = append(s.Runs, Run{GFN: 10, Count: 1, Source: "access"}) }), ""},
		{"of another image", with(func(s *Set) { s.ImagePages = 99 }), "this image has 100"},
		{"no pages", with(func(s *Set) { s.Runs[1].Count = 0 }), "no pages"},
		{"beyond the image", with(func(s *Set) { s.Runs[1] = run(99, 2) }), "beyond"},
		{"overflow", with(func(s *Set) { s.Runs[1] = run(2, ^uint64(0)) }), "beyond"},
		{"twice", with(func(s *Set) { s.Runs[2] = run(14, 1) }), "gfn 14 appears twice"},
		{"negative time", with(func(s *Set) { s.Runs[0].At = -1 }), "time"},
		{"vCPU", with(func(s *Set) { s.Runs[0].VCPU = -2 }), "vCPU"},
		{"source", with(func(s *Set) { s.Runs[0].Source = "a b" }), "source"},
		{"no source", with(func(s *Set) { s.Runs[0].Source = "" }), "source"},
		{"window", with(func(s *Set) { s.Window = -1 }), "window"},
		{"way of two lines", with(func(s *Set) { s.Way = "a\nb" }), "way"},
		{"extra that hides a field", with(func(s *Set) { s.Extra = []Field{{"pages", "1"}} }), "pages"},
		{"extra with a space", with(func(s *Set) { s.Extra = []Field{{"a b", "1"}} }), "header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.set.Validate(100)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && !errors.Is(err, ErrBadSet):
				t.Errorf("error %v does not match ErrBadSet", err)
			case c.want != "" && !strings.Contains(err.Error(), c.want):
				t.Errorf("error %q lacks %q", err, c.want)
			}
		})
	}
}

func TestSetPages(t *testing.T) {
	s := &Set{ImagePages: 100, Runs: []Run{
		run(50, 10), run(0, 5),
		{GFN: 55, Count: 10, Source: SourceAccess}, {GFN: 2, Count: 1, Source: SourceAccess},
	}}
	if err := s.Validate(100); err != nil {
		t.Fatal(err)
	}
	if got := s.Pages(); got != 20 {
		t.Errorf("Pages = %d, want 20", got)
	}
	if got := s.Bytes(); got != 20*4096 {
		t.Errorf("Bytes = %d", got)
	}
	want := []uint64{50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 0, 1, 2, 3, 4, 60, 61, 62, 63, 64}
	if d := cmp.Diff(want, slices.Collect(s.GFNs())); d != "" {
		t.Error("GFNs:", d)
	}
	if got := s.Bitmap().Count(); got != 20 {
		t.Errorf("Bitmap has %d", got)
	}
	if d := cmp.Diff([]Source{SourceAccess, SourceRead}, s.Sources()); d != "" {
		t.Error("Sources:", d)
	}
	for range s.GFNs() {
		break // an iterator may be left early
	}
}

// The pages of a set of one source need no memory for the image's size.
func TestSetGFNsOfOneSource(t *testing.T) {
	s := &Set{ImagePages: 1 << 28, Runs: []Run{run(1<<28-2, 2), run(0, 2)}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := slices.Collect(s.GFNs())
	runtime.ReadMemStats(&after)
	if d := cmp.Diff([]uint64{1<<28 - 2, 1<<28 - 1, 0, 1}, got); d != "" {
		t.Error(d)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes", n)
	}
}

func TestBitmapAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		pages := 1 + rng.Uint64N(3*leafBits)
		b, o := NewBitmap(pages), NewBitmap(pages)
		model, other := map[uint64]bool{}, map[uint64]bool{}
		for range 50 {
			gfn := rng.Uint64N(pages)
			if b.Set(gfn) == model[gfn] {
				t.Fatal("Set does not know what was there")
			}
			model[gfn] = true
			first := rng.Uint64N(pages)
			count := rng.Uint64N(min(pages-first, 300) + 1)
			o.SetRange(first, count)
			for g := first; g < first+count; g++ {
				other[g] = true
			}
		}
		check := func(name string, got *Bitmap, want func(gfn uint64) bool) {
			t.Helper()
			n, seen := uint64(0), uint64(0)
			for gfn := range pages {
				if got.Has(gfn) != want(gfn) {
					t.Fatalf("%s: gfn %d is %v", name, gfn, got.Has(gfn))
				}
				if want(gfn) {
					n++
				}
			}
			if got.Count() != n {
				t.Fatalf("%s: Count %d, want %d", name, got.Count(), n)
			}
			end := uint64(0)
			for first, count := range got.Runs() {
				if count == 0 || (first <= end && seen > 0) {
					t.Fatalf("%s: run %d+%d after %d is not maximal", name, first, count, end)
				}
				for g := first; g < first+count; g++ {
					if !want(g) {
						t.Fatalf("%s: run names %d", name, g)
					}
				}
				end, seen = first+count, seen+count
			}
			if seen != n {
				t.Fatalf("%s: runs have %d pages, want %d", name, seen, n)
			}
		}
		check("b", b, func(g uint64) bool { return model[g] })
		check("o", o, func(g uint64) bool { return other[g] })
		check("And", b.And(o), func(g uint64) bool { return model[g] && other[g] })
		check("AndNot", b.AndNot(o), func(g uint64) bool { return model[g] && !other[g] })
		check("Or", b.Or(o), func(g uint64) bool { return model[g] || other[g] })
		if !b.Or(o).AndNot(o).Equal(b.AndNot(o)) || b.Equal(NewBitmap(pages+1)) {
			t.Fatal("Equal")
		}
	}
}

func TestBitmapBounds(t *testing.T) {
	b := NewBitmap(100)
	for name, f := range map[string]func(){
		"Set": func() { b.Set(100) }, "Has": func() { b.Has(100) },
		"SetRange":          func() { b.SetRange(99, 2) },
		"SetRange overflow": func() { b.SetRange(99, ^uint64(0)) },
		"size":              func() { b.And(NewBitmap(101)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			f()
		}()
	}
	b.SetRange(100, 0) // nothing, nowhere
	if b.Count() != 0 {
		t.Error("something was set")
	}
}

func TestCounts(t *testing.T) {
	prefetched, touched := NewBitmap(1000), NewBitmap(1000)
	prefetched.SetRange(0, 100)
	touched.SetRange(10, 80)
	touched.SetRange(500, 20)
	got := Count(prefetched, touched, 10*time.Second)
	if d := cmp.Diff(Counts{100, 80, 20, 10 * time.Second}, got); d != "" {
		t.Error(d)
	}
	if got.Precision() != 0.8 || got.Recall() != 0.8 {
		t.Errorf("precision %v recall %v", got.Precision(), got.Recall())
	}
	if none := (Counts{}); none.Precision() == none.Precision() || none.Recall() == none.Recall() {
		t.Error("ratios of nothing are not NaN")
	}
	// VEE'11, table 3: SPECjbb by access bits.
	jbb := Counts{Prefetched: 83_471, Skipped: 30_501, Lazy: 442}
	if r, p := jbb.Recall(), jbb.Precision(); math.Abs(r-0.986) > 5e-4 || math.Abs(p-0.365) > 5e-4 {
		t.Errorf("recall %v precision %v", r, p)
	}
}

func TestFirst(t *testing.T) {
	s := &Set{ImagePages: 100, Runs: []Run{
		{GFN: 10, Count: 5, At: 3, Source: SourceTrace},
		{GFN: 90, Count: 1, At: 4, Source: SourceTrace, VCPU: 1},
		{GFN: 11, Count: 2, At: 5, Source: SourceRead},
		{GFN: 40, Count: 2, At: 6, Source: SourceTrace},
	}}
	pages := NewBitmap(100)
	for _, gfn := range []uint64{0, 11, 12, 41, 90} {
		pages.Set(gfn)
	}
	want := []Run{
		{GFN: 11, Count: 2, Source: SourceTrace},
		{GFN: 90, Count: 1, Source: SourceTrace, VCPU: 1},
		{GFN: 11, Count: 2, Source: SourceRead},
		{GFN: 41, Count: 1, Source: SourceTrace},
		{GFN: 10, Count: 1, At: 3, Source: SourceTrace},
		{GFN: 13, Count: 2, At: 3, Source: SourceTrace},
		{GFN: 40, Count: 1, At: 6, Source: SourceTrace},
	}
	got := s.First(pages)
	if diff := cmp.Diff(want, got.Runs); diff != "" {
		t.Error(diff)
	}
	if err := got.Validate(100); err != nil {
		t.Error(err)
	}
	if got.Pages() != s.Pages() || len(s.Runs) != 4 {
		t.Errorf("%d pages, there were %d", got.Pages(), s.Pages())
	}
}
