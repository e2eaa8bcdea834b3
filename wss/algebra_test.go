package wss

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// page is one page of a set, as in the record.
type page struct {
	gfn    uint64
	us     int64
	source Source
	vcpu   int
}

// flat is a set as the list of its pages, in order: the model that the algebra is tested against.
func flat(s *Set) (all []page) {
	for _, r := range s.Runs {
		for gfn := r.GFN; gfn < r.End(); gfn++ {
			all = append(all, page{gfn, r.At.Microseconds(), r.Source, r.VCPU})
		}
	}
	return all
}

// randomSet makes a valid set of up to three sources.
func randomSet(rng *rand.Rand, pages uint64) *Set {
	s := &Set{ImagePages: pages, Way: "random"}
	sources := []Source{SourceTrace, SourceAccess, SourceRead}[:1+rng.IntN(3)]
	type key struct {
		source Source
		gfn    uint64
	}
	seen := map[key]bool{}
	for range rng.IntN(20) {
		r := Run{GFN: rng.Uint64N(pages), Source: sources[rng.IntN(len(sources))],
			At: time.Duration(rng.IntN(5)) * ms, VCPU: rng.IntN(3) - 1}
		r.Count = 1 + rng.Uint64N(min(pages-r.GFN, 30))
		free := true
		for gfn := r.GFN; gfn < r.End(); gfn++ {
			free = free && !seen[key{r.Source, gfn}]
		}
		if !free {
			continue
		}
		for gfn := r.GFN; gfn < r.End(); gfn++ {
			seen[key{r.Source, gfn}] = true
		}
		s.Runs = append(s.Runs, r)
	}
	return s
}

// has is the set of the gfns of a model.
func has(pages []page) map[uint64]bool {
	m := map[uint64]bool{}
	for _, p := range pages {
		m[p.gfn] = true
	}
	return m
}

// keep is the pages that a condition holds for.
func keep(pages []page, f func(page) bool) (kept []page) {
	for _, p := range pages {
		if f(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// distinct is each page the first time that key gives something new for it.
func distinct[K comparable](pages []page, key func(page) K) []page {
	seen := map[K]bool{}
	return keep(pages, func(p page) bool {
		k := key(p)
		was := seen[k]
		seen[k] = true
		return !was
	})
}

func TestAlgebraAgainstModel(t *testing.T) {
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 3))
		pages := 1 + rng.Uint64N(300)
		if seed%10 == 0 {
			pages += 2 * leafBits // beyond a leaf of the bitmap
		}
		sets := make([]*Set, 1+rng.IntN(4))
		var all []page
		var named []map[uint64]bool
		for i := range sets {
			sets[i] = randomSet(rng, pages)
			all = append(all, flat(sets[i])...)
			named = append(named, has(flat(sets[i])))
		}
		first := flat(sets[0])
		votes := func(gfn uint64) (n int) {
			for _, m := range named {
				if m[gfn] {
					n++
				}
			}
			return n
		}
		check := func(name string, got *Set, err error, want []page) {
			t.Helper()
			if err != nil {
				t.Fatalf("seed %d: %s: %v", seed, name, err)
			}
			if err := got.Validate(pages); err != nil {
				t.Fatalf("seed %d: %s: %v", seed, name, err)
			}
			if d := cmp.Diff(want, flat(got), cmp.AllowUnexported(page{})); d != "" {
				t.Fatalf("seed %d: %s of %v: %s", seed, name, sets, d)
			}
		}
		got, err := Union(sets...)
		check("union", got, err,
			distinct(all, func(p page) page { return page{gfn: p.gfn, source: p.source} }))
		got, err = Intersection(sets...)
		check("intersection", got, err,
			keep(first, func(p page) bool { return votes(p.gfn) == len(sets) }))
		got, err = Difference(sets...)
		check("difference", got, err, keep(first, func(p page) bool { return votes(p.gfn) == 1 }))
		ranked := distinct(all, func(p page) uint64 { return p.gfn })
		slices.SortStableFunc(ranked, func(a, b page) int { return votes(b.gfn) - votes(a.gfn) })
		got, err = Rank(sets...)
		check("rank", got, err, ranked)

		limit := rng.IntN(len(has(first)) + 2)
		check("bound", sets[0].Bound(int64(limit)*PageSize+rng.Int64N(PageSize)), nil,
			boundModel(first, limit))
		check("only", sets[0].Only(SourceTrace), nil,
			keep(first, func(p page) bool { return p.source == SourceTrace }))
		checkDrop(t, sets[0], rng)
		checkOverlap(t, sets[0], sets[len(sets)-1])
	}
}

// boundModel keeps so many pages of the front, and what names them again.
func boundModel(pages []page, limit int) []page {
	kept := map[uint64]bool{}
	return keep(pages, func(p page) bool {
		if !kept[p.gfn] && len(kept) < limit {
			kept[p.gfn] = true
		}
		return kept[p.gfn]
	})
}

func checkDrop(t *testing.T, s *Set, rng *rand.Rand) {
	t.Helper()
	percent, seed := float64(rng.IntN(101)), rng.Uint64()
	n := s.Pages()
	got := s.Drop(percent, seed)
	left := has(flat(got))
	if want := n - uint64(percent/100*float64(n)+0.5); got.Pages() != want {
		t.Fatalf("%v %% of %d pages dropped: %d left, want %d", percent, n, got.Pages(), want)
	}
	want := keep(flat(s), func(p page) bool { return left[p.gfn] })
	if d := cmp.Diff(want, flat(got), cmp.AllowUnexported(page{})); d != "" {
		t.Fatal("what is left is not as it was:", d)
	}
	if d := cmp.Diff(got.Runs, s.Drop(percent, seed).Runs); d != "" {
		t.Fatal("the same seed drops other pages:", d)
	}
}

func checkOverlap(t *testing.T, a, b *Set) {
	t.Helper()
	got := a.Overlap(b)
	ma, mb := has(flat(a)), has(flat(b))
	both := 0
	for gfn := range ma {
		if mb[gfn] {
			both++
		}
	}
	if want := (Overlap{uint64(len(ma)), uint64(len(mb)), uint64(both)}); got != want {
		t.Fatalf("overlap %v, want %v", got, want)
	}
}

// What the documentation promises of order and of combinations of combinations.
func TestAlgebraLaws(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 4))
		pages := 1 + rng.Uint64N(200)
		a, b, c := randomSet(rng, pages), randomSet(rng, pages), randomSet(rng, pages)
		must := func(s *Set, err error) *Set {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		same := func(name string, x, y *Set) {
			t.Helper()
			if d := cmp.Diff(x.Runs, y.Runs); d != "" {
				t.Fatalf("seed %d: %s: %s", seed, name, d)
			}
		}
		same("union is associative", must(Union(a, b, c)), must(Union(must(Union(a, b)), c)))
		same("union with oneself", must(Union(a, a)), must(Union(a)))
		same("intersection is associative", must(Intersection(a, b, c)),
			must(Intersection(must(Intersection(a, b)), c)))
		same("difference of more", must(Difference(a, b, c)), must(Difference(must(Difference(a, b)), c)))
		if !must(Union(a, b)).Bitmap().Equal(must(Union(b, a)).Bitmap()) {
			t.Fatal("union the other way round has other pages")
		}
		if got := must(Difference(a, a)); len(got.Runs) != 0 {
			t.Fatalf("a without a has %v", got.Runs)
		}
		if got := must(Rank(a, b, c)); got.Pages() != must(Union(a, b, c)).Pages() {
			t.Fatal("rank has other pages than union")
		}
	}
}

func TestAlgebraErrors(t *testing.T) {
	a, b := &Set{ImagePages: 10}, &Set{ImagePages: 11}
	for name, op := range map[string]func(...*Set) (*Set, error){
		"union": Union, "intersection": Intersection, "difference": Difference, "rank": Rank,
	} {
		if _, err := op(); !errors.Is(err, ErrBadSet) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s of nothing: %v", name, err)
		}
		if _, err := op(a, b); !errors.Is(err, ErrBadSet) {
			t.Errorf("%s of different images: %v", name, err)
		}
	}
	huge := &Set{ImagePages: maxCombined + 1}
	if _, err := Union(huge, huge); !errors.Is(err, ErrBadSet) {
		t.Errorf("sets of %d pages: %v", huge.ImagePages, err)
	}
	many := &Set{Runs: make([]Run, MaxRuns+1)}
	if _, err := many.fits(); !errors.Is(err, ErrBadSet) {
		t.Errorf("a union of too many runs: %v", err)
	}
}

func TestCombinedHeader(t *testing.T) {
	old, young := time.Unix(1, 0), time.Unix(2, 0)
	a := &Set{ImagePages: 10, Window: sec, Way: "scan", Created: young, Extra: []Field{{"x", "y"}}}
	b := &Set{ImagePages: 10, Window: 2 * sec, Way: strings.Repeat("ä", 500), Created: old}
	u, err := Union(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Validate(10); err != nil {
		t.Error(err)
	}
	if u.Window != 2*sec || !u.Created.Equal(young) ||
		!strings.HasPrefix(u.Way, "union of 2: scan | ä") {
		t.Errorf("header %v", u)
	}
}

func TestOverlapShares(t *testing.T) {
	o := Overlap{A: 10, B: 40, Both: 8}
	if o.Jaccard() != 8./42 || o.OfA() != 0.8 || o.OfB() != 0.2 {
		t.Errorf("%v %v %v", o.Jaccard(), o.OfA(), o.OfB())
	}
	var none Overlap
	if !math.IsNaN(none.Jaccard()) || !math.IsNaN(none.OfA()) || !math.IsNaN(none.OfB()) {
		t.Error("shares of nothing are not NaN")
	}
}

func TestPolicy(t *testing.T) {
	const gib = 262_144
	for _, c := range []struct {
		policy Policy
		pages  uint64
		want   uint64
	}{
		{Policy{}, gib, gib / 4},
		{Policy{}, 64 * gib, 16 * gib},
		{Policy{}, 65_536, 32_768}, // the floor: REAP's 256 MB machines touch up to 99 MB
		{Policy{}, 1000, 1000},     // no more than there is
		{Policy{MaxShare: 0.5}, gib, gib / 2},
		{Policy{MaxShare: 0.1, Floor: -1}, 1000, 100},
		{Policy{MaxShare: 1}, gib, gib},
		{Policy{MaxShare: 7}, gib, gib},
	} {
		if got := c.policy.Limit(c.pages); got != c.want {
			t.Errorf("%+v of %d pages: %d, want %d", c.policy, c.pages, got, c.want)
		}
	}

	// VEE'11, table 3: SPECjbb by access bits and by its trace, MPlayer. The first is the one whose
	// precision was 37 %.
	for pages, fine := range map[uint64]bool{83_471: false, 47_082: true, 10_113: true} {
		s := &Set{ImagePages: gib, Runs: []Run{run(0, pages)}}
		err := Policy{}.Check(s)
		bounded, warning := Policy{}.Apply(s)
		if fine {
			if err != nil || warning != nil || bounded != s {
				t.Errorf("%d pages: %v, %v", pages, err, warning)
			}
			continue
		}
		var large *TooLargeError
		if !errors.As(err, &large) || !errors.Is(err, ErrBadSet) || *large != *warning {
			t.Errorf("%d pages: %v, %v", pages, err, warning)
		}
		want := "the working set has 83,471 pages, 32 % of the image; at most 65,536 (256 MiB) may " +
			"be brought before the machine runs"
		if warning.Error() != want {
			t.Errorf("warning %q", warning)
		}
		if d := cmp.Diff([]Run{run(0, gib/4)}, bounded.Runs); d != "" {
			t.Error(d)
		}
	}
}

// largeSets are two traces of a machine of 64 GiB, of 1.6 million runs each: what fcvm measured of
// a guest of 128 GiB (mean run 2.3 pages), half of it in common.
func largeSets() (a, b *Set) {
	const runs = 1_600_000
	make := func(seed uint64) *Set {
		rng := rand.New(rand.NewPCG(seed, 0))
		s := &Set{ImagePages: 16 << 20}
		for i := range uint64(runs) {
			if i%2 == 0 || rng.IntN(2) == 0 {
				s.Runs = append(s.Runs, Run{GFN: i * 10, Count: 1 + i%4, Source: SourceTrace})
			}
		}
		rng.Shuffle(len(s.Runs), func(i, j int) { s.Runs[i], s.Runs[j] = s.Runs[j], s.Runs[i] })
		return s
	}
	return make(1), make(2)
}

func BenchmarkAlgebra(b *testing.B) {
	x, y := largeSets()
	for _, op := range []struct {
		name string
		f    func() (*Set, error)
	}{
		{"union", func() (*Set, error) { return Union(x, y) }},
		{"intersection", func() (*Set, error) { return Intersection(x, y) }},
		{"rank", func() (*Set, error) { return Rank(x, y) }},
		{"bound", func() (*Set, error) { return x.Bound(1 << 30), nil }},
		{"drop", func() (*Set, error) { return x.Drop(5, 1), nil }},
	} {
		b.Run(fmt.Sprintf("%s/%d runs", op.name, len(x.Runs)), func(b *testing.B) {
			for b.Loop() {
				if _, err := op.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
