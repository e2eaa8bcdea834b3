package fs

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A film is a working set with random times, and how long each of its pieces takes to come.
type film struct {
	schedule schedule
	took     []time.Duration
}

// randomFilm has pieces of random sizes. Its touches are bunched in the beginning, as those of machines are,
// and not always in order. The pieces take cost a page, times a random factor up to spread.
func randomFilm(rnd *rand.Rand, cost time.Duration, spread float64) film {
	var f film
	f.schedule.timed = true
	var at time.Duration
	pace := float64(cost) * 256 * (0.2 + 3*rnd.Float64())
	for range 1 + rnd.IntN(60) {
		d := due{pages: 1 + rnd.IntN(256)}
		if rnd.IntN(3) > 0 {
			d.pages = 256
		}
		at += time.Duration(rnd.ExpFloat64() * pace * rnd.Float64())
		if d.at = at; rnd.IntN(10) == 0 {
			d.at /= 2
		}
		if rnd.IntN(20) == 0 {
			d.at = never
		}
		took := float64(cost) * float64(d.pages) * (1 + (spread-1)*rnd.Float64())
		f.schedule.pieces, f.took = append(f.schedule.pieces, d), append(f.took, time.Duration(took))
	}
	return f
}

// play brings the pieces one after another and returns how many had come at the landing, and when. The
// tail takes slower times as long.
func (f film) play(p *playout, slower float64) (head int, at time.Duration) {
	p.plan(&f.schedule, p.margin)
	now := time.Duration(0)
	head = -1
	land := func(i int) {
		if head < 0 && (p.safe() || i == len(f.took)) {
			p.land(now)
			head, at = i, now
		}
	}
	land(0)
	for i, took := range f.took {
		if head >= 0 {
			took = time.Duration(float64(took) * slower)
		}
		now += took
		p.brought(i, f.schedule.pieces[i].pages, now)
		land(i + 1)
	}
	return head, at
}

// least is by trying how many pieces must have come so that all others come in time.
func (f film) least(margin float64) int {
	for head := 0; head <= len(f.took); head++ {
		ok := true
		after := time.Duration(0)
		for i := head; i < len(f.took); i++ {
			after += f.took[i]
			d := f.schedule.pieces[i]
			if d.at != never && float64(after)*(1+margin) > float64(d.at) {
				ok = false
			}
		}
		if ok {
			return head
		}
	}
	return len(f.took)
}

// safeByPiece is what safe says if each piece is looked at.
func (p *playout) safeByPiece() bool {
	cost, spread := p.pace.cost()
	var pages, count float64
	for i, d := range p.pieces {
		if p.done[i] {
			continue
		}
		pages, count = pages+float64(d.pages), count+1
		if d.at != never && pages*(cost+2*spread/math.Sqrt(count))*(1+p.margin) > float64(d.at) {
			return false
		}
	}
	return true
}

// A set of many pieces is looked at by the group: in as many steps as one of maxGroups pieces, and never safe
// too early. A short one is safe with the piece.
func TestPlayoutGroups(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 6))
	films := 60
	if raceEnabled {
		films = 8
	}
	for n := range films {
		pieces := 1 + rnd.IntN(maxGroups)
		if n%2 == 0 {
			pieces = maxGroups + rnd.IntN(8*maxGroups)
		}
		var f film
		f.schedule.timed = true
		var at time.Duration
		for range pieces {
			at += time.Duration(rnd.Int64N(2600))
			f.schedule.pieces = append(f.schedule.pieces, due{pages: 1 + rnd.IntN(256), at: at})
		}
		p := newPlayout(pieces, startMargin, pace{})
		if rnd.IntN(2) == 0 {
			p.plan(&f.schedule, startMargin)
		}
		order := rnd.Perm(pieces)
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(a/4, b/4) }) // as four bring them
		now := time.Duration(0)
		for i, piece := range order {
			now += time.Duration(500 + rnd.IntN(1000))
			p.brought(piece, f.schedule.pieces[piece].pages, now)
			if p.pieces == nil && i > pieces/8 {
				p.plan(&f.schedule, startMargin)
			}
			if p.pieces == nil {
				continue
			}
			if len(p.groups) > maxGroups || p.width != (pieces+maxGroups-1)/maxGroups {
				t.Fatalf("%d pieces in %d groups of %d", pieces, len(p.groups), p.width)
			}
			switch safe, byPiece := p.safe(), p.safeByPiece(); {
			case safe && !byPiece:
				t.Fatalf("film %d: safe with %d of %d pieces, too early", n, i+1, pieces)
			case safe != byPiece && p.width == 1:
				t.Fatalf("film %d: safe with %d of %d pieces: %v, by the piece %v", n, i+1, pieces, safe, byPiece)
			}
		}
		if !p.safe() {
			t.Fatalf("film %d: not safe with all pieces there", n)
		}
	}
}

// At a constant rate a long set lands at most a group later than the earliest moment that is safe.
func TestPlayoutLongSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	for n := range 20 {
		f := film{schedule: schedule{timed: true}}
		var at time.Duration
		for range 1 + rnd.IntN(3*maxGroups) {
			at += time.Duration(rnd.Int64N(400_000))
			f.schedule.pieces = append(f.schedule.pieces, due{pages: 256, at: at})
			f.took = append(f.took, 256*time.Microsecond)
		}
		p := newPlayout(len(f.took), startMargin, pace{})
		head, _ := f.play(p, 1)
		if least := max(f.least(startMargin), 1); head < least || head > least+p.width {
			t.Errorf("film %d: it lands after %d of %d pieces, the least is %d, a group has %d",
				n, head, len(f.took), least, p.width)
		}
		if p.real < 0 {
			t.Errorf("film %d: a piece is late by %v", n, -p.real)
		}
	}
}

// At a constant rate a playout lands at the earliest moment that is safe, to the piece, and nothing comes
// late.
func TestPlayoutConstantRate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	early := 0
	for n := range 2000 {
		cost := time.Duration(1000 * (1 + rnd.IntN(100)))
		f := randomFilm(rnd, cost, 1)
		margin := []float64{0, 0.1, 0.25, 1}[rnd.IntN(4)]
		want := f.least(margin)
		if want == 0 { // a rate is only known from the first piece on
			want = 1
		}
		p := newPlayout(len(f.took), margin, pace{})
		head, _ := f.play(p, 1)
		if never := !f.wanted(); never && head == 0 {
			continue // nothing has a time: at once
		}
		if head != want {
			t.Fatalf("film %d: it lands after %d of %d pieces, the least is %d", n, head, len(f.took), want)
		}
		if p.real != never && p.real < 0 {
			t.Fatalf("film %d: a piece is late by %v", n, -p.real)
		}
		if p.planned != never && p.planned < p.real-time.Microsecond {
			t.Fatalf("film %d: slack of %v, planned %v", n, p.real, p.planned)
		}
		if head < len(f.took) {
			early++
		}
		// With the rate known from before it may land before the first piece.
		p = newPlayout(len(f.took), margin, pace{prior: float64(cost)})
		if head, _ := f.play(p, 1); head != f.least(margin) {
			t.Fatalf("film %d: it lands after %d pieces, the least is %d", n, head, f.least(margin))
		}
	}
	if early < 500 {
		t.Errorf("only %d films have a tail", early)
	}
}

func (f film) wanted() bool {
	for _, d := range f.schedule.pieces {
		if d.at != never {
			return true
		}
	}
	return false
}

// With a rate that varies it lands no later than with all pieces, hardly ever too early, and the margin
// pays: pieces are late less often than without.
func TestPlayoutVaryingRate(t *testing.T) {
	late := func(margin float64) (films int) {
		rnd := rand.New(rand.NewPCG(2, 2))
		for range 2000 {
			f := randomFilm(rnd, 5*time.Microsecond, 3)
			p := newPlayout(len(f.took), margin, pace{})
			if head, _ := f.play(p, 1); head > len(f.took) {
				t.Fatal("it never lands")
			}
			if p.real < 0 {
				films++
			}
		}
		return films
	}
	none, start, wide := late(0), late(startMargin), late(maxMargin)
	if none > 200 || start > none/2 || wide > start {
		t.Errorf("of 2000 films %d are late without a margin, %d with the first, %d with the largest",
			none, start, wide)
	}
}

// A medium that gets ten times slower before the landing delays it; one that does so behind it is a
// missed plan.
func TestPlayoutSlowerMedium(t *testing.T) {
	var f film
	f.schedule.timed = true
	const cost = 10 * time.Microsecond
	for i := range 40 {
		f.schedule.pieces = append(f.schedule.pieces, due{pages: 256, at: time.Duration(i) * 3 * time.Millisecond})
		f.took = append(f.took, 256*cost)
	}
	fast := newPlayout(40, startMargin, pace{})
	head, _ := f.play(fast, 1)
	if head > 5 || fast.real < 0 || fast.result(0) == missed {
		t.Errorf("it lands after %d pieces, slack %v", head, fast.real)
	}
	behind := newPlayout(40, startMargin, pace{})
	f.play(behind, 10)
	if behind.real >= 0 || behind.result(0) != missed {
		t.Errorf("a tail ten times slower has slack %v", behind.real)
	}
	for i := 1; i < 40; i++ { // from its second piece on
		f.took[i] *= 10
	}
	before := newPlayout(40, startMargin, pace{prior: float64(cost)})
	if head, _ := f.play(before, 1); head < 20 {
		t.Errorf("a medium ten times slower: it lands after %d pieces", head)
	}
}

// A set without times is safe with its front half there, or more where that was not enough.
func TestPlayoutWithoutTimes(t *testing.T) {
	var f film
	for range 20 {
		f.schedule.pieces = append(f.schedule.pieces, due{pages: 100, at: never})
		f.took = append(f.took, time.Millisecond)
	}
	for margin, want := range map[float64]int{startMargin: 10, 1: 16, maxMargin: 20} {
		p := newPlayout(20, margin, pace{})
		if head, at := f.play(p, 1); head != want || at != time.Duration(want)*time.Millisecond {
			t.Errorf("margin %g: it lands after %d pieces in %v, want %d", margin, head, at, want)
		}
		if p.planned != never {
			t.Errorf("it has a slack of %v", p.planned)
		}
	}
}

// Pieces that come out of order, and a schedule that is known late, change nothing once both are there.
func TestPlayoutOutOfOrder(t *testing.T) {
	s := &schedule{timed: true}
	for i := range 10 {
		s.pieces = append(s.pieces, due{pages: 256, at: time.Duration(i) * time.Millisecond})
	}
	p := newPlayout(10, 0, pace{})
	p.brought(1, 256, time.Millisecond)
	if p.safe() {
		t.Error("it lands without a schedule")
	}
	p.plan(s, 0)
	if p.safe() {
		t.Error("it lands without its first piece, which is wanted at once")
	}
	p.brought(0, 256, 2*time.Millisecond)
	p.brought(2, 256, 3*time.Millisecond)
	if !p.safe() {
		t.Error("three pieces in 3 ms, and the fourth is wanted in 3 ms: it does not land")
	}
	// A cap ended the wait before the schedule was known.
	p = newPlayout(10, 0, pace{})
	p.brought(0, 256, time.Millisecond)
	p.land(time.Millisecond)
	p.plan(s, 0)
	if p.tail != 9*256 || p.planned != 0 {
		t.Errorf("a tail of %d pages, slack %v", p.tail, p.planned)
	}
}

// What a restore shows.
func TestPlayoutResult(t *testing.T) {
	for name, c := range map[string]struct {
		p    playout
		late uint64
		want result
	}{
		"no tail":    {playout{landed: true, timed: true, room: math.Inf(1)}, 0, unknown},
		"not landed": {playout{tail: 100, timed: true, room: 9}, 0, unknown},
		"much room": {
			playout{landed: true, tail: 1000, timed: true, margin: 0.25, room: 2}, 0, spare},
		"some room": {playout{landed: true, tail: 1000, timed: true, margin: 0.25, room: 0.3}, 0, met},
		"no room": {
			playout{landed: true, tail: 1000, timed: true, margin: 0.25, room: -0.1}, 0, missed},
		"a page late": {
			playout{landed: true, tail: 1000, timed: true, margin: 0.25, room: 2}, 1, met},
		"many pages late": {
			playout{landed: true, tail: 1000, timed: true, margin: 0.25, room: 2}, 50, missed},
		"without times":         {playout{landed: true, tail: 1000, margin: 0.25, room: math.Inf(1)}, 0, spare},
		"without times, late":   {playout{landed: true, tail: 1000, margin: 0.25, room: math.Inf(1)}, 50, missed},
		"without times, a page": {playout{landed: true, tail: 1000, margin: 0.25, room: math.Inf(1)}, 1, met},
	} {
		if got := c.p.result(c.late); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// A medium that has become slower is believed at once, one that has become faster only on the average; and
// the pieces that differ widen the spread.
func TestPace(t *testing.T) {
	var even, slower, faster pace
	var now, then time.Duration
	for i := range 40 {
		even.brought(100, time.Duration(i+1)*100)
		took := []time.Duration{100, 1000}
		if i >= 30 {
			took[0], took[1] = took[1], took[0]
		}
		now, then = now+took[0], then+took[1]
		slower.brought(100, now)
		faster.brought(100, then)
	}
	if mean, spread := even.cost(); mean != 1 || spread > 1e-6 {
		t.Errorf("a page in 1 ns: %g, spread %g", mean, spread)
	}
	if mean, spread := slower.cost(); mean != 10 || spread < 3 {
		t.Errorf("10 ns after 1 ns: %g, spread %g", mean, spread)
	}
	if mean, _ := faster.cost(); mean != (30*10+10*1)/40. {
		t.Errorf("1 ns after 10 ns: %g", mean)
	}
}
