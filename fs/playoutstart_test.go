package fs

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Until a restore gets going a piece takes long. That is not how fast the others come: the machine begins as
// soon as so many have come that the start can be told from the rest, and none is late.
func TestPlayoutSlowStart(t *testing.T) {
	var f film
	f.schedule.timed = true
	for i := range 60 {
		d := due{pages: 256, at: time.Duration(i) * 2 * time.Millisecond}
		f.schedule.pieces = append(f.schedule.pieces, d)
		f.took = append(f.took, 600*time.Microsecond)
	}
	f.took[0] = 8 * time.Millisecond
	all := newPlayout(len(f.took), startMargin, pace{})
	if head, _ := f.play(all, 1); head < 10 {
		t.Fatalf("if the start counts it lands after %d pieces: this tests nothing", head)
	}
	p := newPlayout(len(f.took), startMargin, pace{atOnce: 3})
	head, at := f.play(p, 1)
	if head != 6 || at != 11*time.Millisecond {
		t.Errorf("it lands after %d pieces, in %v", head, at)
	}
	if p.real < 0 || p.result(0) == missed {
		t.Errorf("slack %v", p.real)
	}
	if mean, spread := p.pace.cost(); mean > 2400 || spread > 100 {
		t.Errorf("a page takes %g ns, spread %g", mean, spread)
	}
	if whole := p.pace.whole(); whole < 2500 {
		t.Errorf("a page takes %g ns with the start", whole)
	}
}

// A medium that answers many requests at once, each of them slowly, brings pieces in bunches. The first bunch
// is no start that will not come again: pieces are late as seldom as if all of them counted.
func TestPlayoutBunches(t *testing.T) {
	late := func(atOnce func(bunch int) int) (films int, waited time.Duration) {
		rnd := rand.New(rand.NewPCG(4, 4))
		for range 2000 {
			f := randomFilm(rnd, 10*time.Microsecond, 1)
			bunch := 2 + rnd.IntN(10)
			for i := range f.took {
				f.took[i] = 0
				if i%bunch == 0 {
					f.took[i] = time.Duration(bunch) * 256 * 10 * time.Microsecond
				}
			}
			p := newPlayout(len(f.took), startMargin, pace{atOnce: atOnce(bunch)})
			_, at := f.play(p, 1)
			waited += at
			if p.real < 0 {
				films++
			}
		}
		return films, waited
	}
	all, before := late(func(int) int { return 0 })
	begun, after := late(func(bunch int) int { return bunch + 2 })
	t.Logf("of 2000 films %d are late if the start counts, %d if not; they wait %v and %v", all, begun,
		before, after)
	if begun > all+all/10+2 {
		t.Errorf("of 2000 films %d are late without the start, %d with it", begun, all)
	}
}
