package learn

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A guest touches some pages after each restore: those of its core nearly always, a part that moves on with
// the restores, one of several others, and some at random.
type guest struct {
	pages    uint64
	core     []uint64
	drift    uint64 // pages of the part that moves
	every    uint64 // restores, by which it moves by its own length
	random   int
	moods    [][]uint64 // it is in one of them after five restores, and then in the next
	restores uint64
}

// clusters are runs of 1 to 32 pages, n pages together, below most.
func clusters(rng *rand.Rand, n, most uint64) (all []uint64) {
	in := map[uint64]bool{}
	for uint64(len(all)) < n {
		gfn := rng.Uint64N(most)
		for range 1 + rng.IntN(32) {
			if gfn < most && !in[gfn] && uint64(len(all)) < n {
				in[gfn] = true
				all = append(all, gfn)
			}
			gfn++
		}
	}
	return all
}

// touches are the pages of one restore, in the order of first touch.
func (g *guest) touches(rng *rand.Rand) []uint64 {
	g.restores++
	in := map[uint64]bool{}
	var all []uint64
	add := func(gfn uint64) {
		if gfn < g.pages && !in[gfn] {
			in[gfn] = true
			all = append(all, gfn)
		}
	}
	for _, gfn := range g.core {
		if rng.IntN(50) > 0 {
			add(gfn)
		}
	}
	if g.drift > 0 {
		from := g.pages/2 + g.restores/g.every*g.drift%(g.pages/2-g.drift)
		for i := range g.drift {
			add(from + i)
		}
	}
	if len(g.moods) > 0 {
		for _, gfn := range g.moods[g.restores/5%uint64(len(g.moods))] {
			add(gfn)
		}
	}
	for range g.random {
		add(rng.Uint64N(g.pages))
	}
	return all
}

// A life is a checkpoint with its set, its guest, and what is learned of it.
type life struct {
	t   testing.TB
	rng *rand.Rand
	g   *guest
	r   *Record
	set *wss.Set // that the checkpoint has; nil: none
	id  int
	now time.Time
	// estimated is the size of the last set that was not learned.
	estimated uint64
	// promoted counts the sets that were learned.
	promoted int
}

// bound is how large a learned set may be.
func (l *life) bound() uint64 {
	if l.estimated == 0 {
		return l.g.pages / 4
	}
	return min(l.g.pages/4, 2*l.estimated)
}

func newLife(t *testing.T, seed uint64, g *guest, set []uint64) *life {
	l := &life{t: t, rng: rand.New(rand.NewPCG(seed, 2)), g: g, r: New(g.pages),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	if len(set) > 0 {
		l.set = setOf(g.pages, set)
		l.estimated = l.set.Pages()
	}
	return l
}

func setOf(pages uint64, gfns []uint64) *wss.Set {
	s := &wss.Set{ImagePages: pages, Window: time.Second}
	for i, gfn := range gfns {
		s.Runs = append(s.Runs, wss.Run{GFN: gfn, Count: 1, At: time.Duration(i) * time.Millisecond,
			Source: wss.SourceTrace, VCPU: wss.NoVCPU})
	}
	return s
}

// shown is a restore, and what is true of it.
type shown struct {
	Restore
	set               *wss.Bitmap
	precision, recall float64
}

// restore is one restore of the guest, which counts if why is empty.
func (l *life) restore(why string) (shown, Entry) {
	l.t.Helper()
	l.now = l.now.Add(time.Minute)
	l.r.Meet(PagesOf(l.set), l.now)
	plan := l.r.Begin()
	set := wss.NewBitmap(l.g.pages)
	if l.set != nil {
		set = l.set.Bitmap()
	}
	drop := wss.NewBitmap(l.g.pages)
	for _, gfn := range plan.Drop {
		drop.Set(gfn)
	}
	set = set.AndNot(drop)
	for _, p := range plan.Add {
		set.Set(p.GFN)
	}
	x := shown{set: set, Restore: Restore{At: l.now, Base: l.r.Base, Candidate: plan.Candidate,
		Pages: set.Count(), Why: why}}
	x.Sample, x.Checks = l.r.Hold(spansIn(set), l.rng)
	out := wss.NewBitmap(l.g.pages)
	for _, gfn := range slices.Concat(x.Sample, x.Checks) {
		if !set.Has(gfn) || !out.Set(gfn) {
			l.t.Fatalf("page %d is held out twice, or not of the set", gfn)
		}
	}
	brought := set.AndNot(out)
	x.Brought = brought.Has
	var asked []uint64
	used, all := 0, l.g.touches(l.rng)
	for _, gfn := range all {
		if set.Has(gfn) {
			used++
		}
		if !brought.Has(gfn) {
			asked = append(asked, gfn)
		}
	}
	x.Touched = setOf(l.g.pages, asked)
	x.precision, x.recall = float64(used)/float64(max(set.Count(), 1)), float64(used)/float64(len(all))
	return x, l.r.Take(x.Restore)
}

// promote gives the checkpoint the set that has proved itself.
func (l *life) promote() {
	if !l.r.Proved() {
		return
	}
	next, err := l.r.Set(l.set)
	if err != nil {
		l.t.Fatal(err)
	}
	if n := next.Pages(); n != l.r.Trial.Pages || n > l.bound() {
		l.t.Fatalf("a set of %d pages, want %d, and %d at most", n, l.r.Trial.Pages, l.bound())
	}
	l.set = next
	l.id++
	l.promoted++
}

// reload makes a new record out of the text of the old one.
func (l *life) reload() {
	text, err := l.r.Text()
	if err != nil {
		l.t.Fatal(err)
	}
	if l.r, err = Parse(text); err != nil {
		l.t.Fatal(err)
	}
	again, err := l.r.Text()
	if err != nil || !bytes.Equal(text, again) {
		l.t.Fatalf("the text of what was read is another one: %v", err)
	}
}

// model is what should be learned, worked out for every page of the image, in 64ths. Negative: that of all.
type model struct {
	scores []int
	sides  [2]Side
	ended  [2]int // trials that the candidate has lost and won
}

func newModel(pages uint64) *model {
	m := &model{scores: make([]int, pages)}
	for i := range m.scores {
		m.scores[i] = -1
	}
	return m
}

// change gives a page another score.
func (m *model) change(gfn uint64, in bool, to int) {
	if in && to >= 96 || !in && to < 16 {
		to = -1
	}
	m.scores[gfn] = to
}

// follow compares a restore that counted with the model.
func (m *model) follow(t *testing.T, l *life, x shown, e Entry, before *Trial) {
	t.Helper()
	in, touched := wss.NewBitmap(l.g.pages), x.Touched.Bitmap()
	if l.set != nil {
		in = l.set.Bitmap()
	}
	var missed, late uint64
	for gfn := range l.g.pages {
		held := slices.Contains(x.Sample, gfn) || slices.Contains(x.Checks, gfn)
		score := m.scores[gfn]
		switch {
		case touched.Has(gfn):
			switch {
			case x.Brought(gfn):
				late++
			case !held:
				missed++
			}
			if score >= 0 || !in.Has(gfn) {
				m.change(gfn, in.Has(gfn), min(max(score, 0)*3/4+64, 128))
			}
		case x.Brought(gfn):
		case score >= 0:
			m.change(gfn, in.Has(gfn), score*3/4)
		case in.Has(gfn) && held:
			m.change(gfn, true, 72)
		}
		got := -1
		if p, known := l.r.pages[gfn]; known {
			got = int(p.value)
		}
		if got != m.scores[gfn] {
			t.Fatalf("page %d has a score of %d, want %d", gfn, got, m.scores[gfn])
		}
	}
	if e.Missed != missed || e.Late != late || e.Pages != x.set.Count() {
		t.Fatalf("%+v, want %d missed, %d late, of a set of %d", e, missed, late, x.set.Count())
	}
	m.trial(t, l, x, e, before)
}

// settle follows a set that has become another one.
func (m *model) settle(l *life) {
	if l.set == nil {
		return
	}
	in := l.set.Bitmap()
	for gfn, score := range m.scores {
		if score >= 0 {
			m.change(uint64(gfn), in.Has(uint64(gfn)), score)
		}
	}
}

// trial follows the restores of a trial.
func (m *model) trial(t *testing.T, l *life, x shown, e Entry, before *Trial) {
	t.Helper()
	if before == nil {
		if now := l.r.Trial; now != nil {
			m.sides = [2]Side{}
			if now.Pages > l.bound() {
				t.Fatalf("a candidate of %d pages, at most %d may be", now.Pages, l.bound())
			}
		}
		return
	}
	if before.Proved {
		return
	}
	s := &m.sides[min(x.Candidate, 1)]
	s.Restores, s.Bad = s.Restores+1, s.Bad+e.Late+e.Missed
	old, now := m.sides[0], m.sides[1]
	if old.Restores < TrialRestores || now.Restores < TrialRestores {
		if l.r.Trial == nil || l.r.Proved() {
			t.Fatalf("the trial is over after %v and %v", old, now)
		}
		return
	}
	worse := now.Bad*uint64(old.Restores) >= old.Bad*uint64(now.Restores)
	if before.Pages <= l.r.BasePages {
		a, b := float64(now.Bad)/float64(now.Restores), float64(old.Bad)/float64(old.Restores)
		worse = a > b*17/16+1
	}
	m.ended[0] += min(len(e.Decision), 1)
	if !worse {
		m.ended[0], m.ended[1] = m.ended[0]-1, m.ended[1]+1
	}
	if worse != (l.r.Trial == nil) || !worse && !l.r.Proved() {
		t.Fatalf("%v beside %v: %+v", now, old, l.r.Trial)
	}
}

// Random guests live with random sets, restores that are cut short, servers that begin again, and people who
// set other sets.
func TestLife(t *testing.T) {
	var ended [2]int // trials that candidates have lost and won
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			one := life1(t, seed)
			ended[0], ended[1] = ended[0]+one[0], ended[1]+one[1]
		})
	}
	t.Logf("%d candidates were dropped, %d proved themselves", ended[0], ended[1])
	if ended[0] < 2 || ended[1] < 20 {
		t.Error("too few to say anything")
	}
}

func life1(t *testing.T, seed uint64) (ended [2]int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	g := &guest{pages: 4096 + rng.Uint64N(8192), random: max(rng.IntN(40)-20, 0), every: 1 + rng.Uint64N(20)}
	g.core = clusters(rng, 50+rng.Uint64N(800), g.pages/2)
	g.drift = rng.Uint64N(150)
	for range rng.IntN(4) {
		g.moods = append(g.moods, clusters(rng, 60, g.pages))
	}
	var begin []uint64
	if rng.IntN(4) > 0 {
		begin = append(slices.Clone(g.core[:rng.IntN(len(g.core))]), clusters(rng, 30, g.pages/2)...)
		slices.Sort(begin)
		begin = slices.Compact(begin)
	}
	l := newLife(t, seed, g, begin)
	m := newModel(g.pages)
	for range 120 {
		set := l.set
		if rng.IntN(60) == 0 { // somebody sets another one
			l.set, l.id = setOf(g.pages, clusters(rng, 40, g.pages)), l.id+1
			l.estimated = l.set.Pages()
			m, set = &model{newModel(g.pages).scores, m.sides, m.ended}, l.set
		}
		if rng.IntN(5) == 0 {
			before := stateOf(l.r)
			x, e := l.restore("the machine has ended")
			if e.Counted || set != l.set {
				t.Fatalf("%+v", e)
			}
			if x.Base == before.base && !maps.Equal(before.pages, l.r.pages) || l.r.Restores != before.restores+1 {
				t.Fatal("it has learned from a restore that was cut short")
			}
			continue
		}
		l.r.Meet(PagesOf(l.set), l.now)
		var before *Trial
		if l.r.Trial != nil {
			t := *l.r.Trial
			before = &t
		}
		x, e := l.restore("")
		m.follow(t, l, x, e, before)
		if set != l.set {
			t.Fatal("the set is another one, and nobody has set it")
		}
		if rng.IntN(3) > 0 {
			l.promote()
			m.settle(l)
		}
		if rng.IntN(4) == 0 {
			l.reload()
		}
	}
	return m.ended
}

type state struct {
	base     string
	restores uint64
	pages    map[uint64]score
}

func stateOf(r *Record) state { return state{r.Base, r.Restores, maps.Clone(r.pages)} }

// average is the true recall and precision of the newest sets.
func (l *life) average(restores int) (recall, precision float64) {
	for range restores {
		x, _ := l.restore("")
		l.promote()
		recall, precision = recall+x.recall/float64(restores), precision+x.precision/float64(restores)
	}
	return recall, precision
}

// A guest that uses more than may be learned gets a set as large as the bound.
func TestBoundIsReached(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	g := &guest{pages: 1 << 14, core: clusters(rng, 2000, 1<<13)}
	l := newLife(t, 5, g, slices.Sorted(slices.Values(g.core[:300])))
	for range 30 {
		l.restore("")
		l.promote()
	}
	if n := l.set.Pages(); n > 600 || n < 590 {
		t.Errorf("a set of %d pages, want 600", n)
	}
}

// A larger candidate has to be better than the set, one that is not larger may be a little worse. After one
// was dropped there is none for a while, and for twice as long after the next.
func TestTrialEnds(t *testing.T) {
	for _, c := range []struct {
		pages, old, now uint64
		better          bool
	}{
		{101, 300, 299, true}, {101, 300, 300, false}, {101, 0, 0, false},
		{100, 300, 300, true}, {100, 300, 318, true}, {100, 300, 325, false},
		{50, 0, 3, true}, {50, 0, 4, false},
	} {
		x := Trial{Pages: c.pages, Old: Side{Restores: 3, Bad: c.old}, New: Side{Restores: 3, Bad: c.now}}
		if got := x.better(100); got != c.better {
			t.Errorf("%+v: %v", c, got)
		}
	}
	g := &guest{pages: 4096, core: slices.Collect(func(yield func(uint64) bool) {
		for gfn := range uint64(100) {
			if !yield(gfn) {
				return
			}
		}
	})}
	l := newLife(t, 1, g, g.core)
	var waits []int
	for range 4 {
		g.moods = [][]uint64{{1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007}}
		for wait := 0; l.r.Trial == nil; wait++ {
			if l.restore(""); l.r.Trial != nil {
				waits = append(waits, wait)
			}
		}
		g.moods = [][]uint64{{2000, 2001, 2002, 2003, 2004, 2005, 2006, 2007}} // of no use by now
		for l.r.Trial != nil {
			if l.restore(""); l.r.Proved() {
				t.Fatalf("%+v has proved itself", l.r.Trial)
			}
		}
	}
	if len(waits) != 4 || waits[1] < firstWait || waits[2] < 2*firstWait || waits[3] < 4*firstWait {
		t.Errorf("candidates after %v restores", waits)
	}
}

// What is learned of guests comes near to what they use, and what is measured near to what is true.
func TestConverges(t *testing.T) {
	for _, c := range []struct {
		name              string
		drift, every      uint64
		random            int
		known             int // of the core, in the first set
		wrong             uint64
		restores          int
		recall, precision float64
	}{
		{"no set, stable", 0, 1, 0, 0, 0, 20, 0.99, 0.97},
		{"half known, stable", 0, 1, 0, 1000, 0, 20, 0.99, 0.97},
		{"half known, as much wrong, stable", 0, 1, 0, 1000, 800, 150, 0.99, 0.9},
		{"no set, with random touches", 0, 1, 100, 0, 0, 20, 0.94, 0.95},
		{"no set, drifting", 200, 40, 20, 0, 0, 200, 0.93, 0.85},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 7))
			g := &guest{pages: 1 << 16, drift: c.drift, every: c.every, random: c.random}
			g.core = clusters(rng, 2000, g.pages/2)
			begin := slices.Concat(g.core[:c.known], clusters(rng, c.wrong, g.pages/2))
			slices.Sort(begin)
			l := newLife(t, 3, g, slices.Compact(begin))
			for range c.restores {
				l.restore("")
				l.promote()
			}
			recall, precision := l.average(20)
			q, ok := l.r.Quality()
			t.Logf("after %d restores, %d sets learned: recall %.3f, precision %.3f, measured %.3f and %.3f "+
				"over %d; %d pages, at most %d", c.restores, l.promoted, recall, precision, q.Recall,
				q.Precision, q.Restores, l.set.Pages(), l.r.Bound())
			if recall < c.recall || precision < c.precision {
				t.Errorf("want %.3f and %.3f", c.recall, c.precision)
			}
			if !ok || math.Abs(q.Precision-precision) > 0.08 || math.Abs(q.Recall-recall) > 0.04 {
				t.Errorf("measured %+v", q)
			}
		})
	}
}
