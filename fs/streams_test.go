package fs

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A player touches the pages of an image through streams, with a page cache and pushers of its own,
// which work when they are told to.
type player struct {
	t      testing.TB
	s      streams
	h      *openImage
	orders []Order
	have   map[uint64]bool
	work   []played

	reads, pushed, blocks int
}

// played is the work of a pusher.
type played struct {
	p      pump
	beside bool
	page   uint64
}

// newPlayer plays an image of 16 pages a block, whose layout is an order of pages, as is its working set
// if set is not nil.
func newPlayer(t testing.TB, pages uint64, layout, set []uint64) *player {
	m := &fakeImage{spec: spec{Name: "a", Pages: pages}, store: newFakeStore()}
	p := &player{t: t, h: &openImage{mem: m}, have: map[uint64]bool{}}
	p.orders = []Order{numbers{m, pages}}
	if set != nil {
		p.orders = append(p.orders, newFakeOrder(m, set, 64))
	}
	if layout != nil {
		p.h.local = true
		p.orders = append(p.orders, newFakeOrder(m, layout, 0))
	}
	return p
}

// touch is a page fault.
func (p *player) touch(gfn uint64) {
	if p.have[gfn] {
		return
	}
	p.have[gfn] = true
	p.reads++
	at := touch{count: 1}
	for i, o := range p.orders {
		at.pos[i], at.in[i] = o.Position(gfn)
	}
	to, ahead, beside := p.s.read(p.h, &at, p.orders)
	if ahead || beside {
		p.work = append(p.work, played{to, beside, gfn})
	}
}

// step does one piece of work; false if there was none.
func (p *player) step() bool {
	if len(p.work) == 0 {
		return false
	}
	w := p.work[0]
	if w.beside {
		p.work[0].beside = false
		p.block(w)
		if w.p.id == 0 {
			p.work = p.work[1:]
		}
		return true
	}
	x, more, ok := p.s.take(p.h, w.p, p.orders)
	if !ok {
		p.work = p.work[1:]
		return true
	}
	if more {
		p.work = append(p.work, w)
	}
	p.part(w.p, x)
	return true
}

// block pushes the block of a page.
func (p *player) block(w played) {
	layout := p.orders[len(p.orders)-1]
	pos, _ := layout.Position(w.page)
	first, end := pos/16*16, min(pos/16*16+16, layout.Len())
	gfns := slices.DeleteFunc(layout.GFNs(first, end, nil), func(gfn uint64) bool { return p.have[gfn] })
	if !p.s.reach(p.h, w.p, end) && w.p.id != 0 || len(gfns) == 0 {
		return
	}
	probe, pays := p.s.block(p.h, gfns)
	if !pays {
		return
	}
	p.blocks++
	p.push(slices.DeleteFunc(gfns, func(gfn uint64) bool { return gfn == probe }))
}

// part pushes a part of a stream. It lies before the reader, and two rounds and their last frames from it
// at most.
func (p *player) part(to pump, x part) {
	o := p.orders[to.order]
	if x.first >= x.end || x.end > o.Len() {
		p.t.Fatalf("part [%d,%d) of %d positions", x.first, x.end, o.Len())
	}
	st := &p.s.table[to.order][to.slot]
	if x.first < st.next || st.limit > st.next+2*(maxRound+64) {
		p.t.Fatalf("part [%d,%d) of %+v", x.first, x.end, *st)
	}
	var gfns []uint64
	for i, gfn := range o.GFNs(x.first, x.end, nil) {
		if x.first+uint64(i) != x.mark && !p.have[gfn] {
			gfns = append(gfns, gfn)
		}
	}
	p.push(gfns)
}

func (p *player) push(gfns []uint64) {
	for _, gfn := range gfns {
		p.have[gfn] = true
		p.pushed++
	}
}

// finish does all that is left to do, after which nobody works for a stream.
func (p *player) finish() {
	for p.step() {
	}
	for o := range p.s.table {
		for _, st := range p.s.table[o] {
			if st.pumps != 0 {
				p.t.Fatalf("%d pushers are left with %+v", st.pumps, st)
			}
		}
	}
}

// shuffled is the numbers below n in a random order.
func shuffled(rnd *rand.Rand, n uint64) []uint64 {
	gfns := upTo(n)
	rnd.Shuffle(len(gfns), func(i, j int) { gfns[i], gfns[j] = gfns[j], gfns[i] })
	return gfns
}

// play touches pages, after each of which the pushers do as much as they can, or by chance.
func (p *player) play(gfns []uint64, rnd *rand.Rand) {
	for _, gfn := range gfns {
		p.touch(gfn)
		for rnd == nil || rnd.IntN(3) > 0 {
			if !p.step() {
				break
			}
		}
	}
	p.finish()
}

// Readers that go through an image in one of its orders are found within a few READs, and do the rest
// in a few more, whether pushers are quick or late.
func TestStreams(t *testing.T) {
	const pages = 1 << 14
	rnd := rand.New(rand.NewPCG(1, 2))
	layout, set := shuffled(rnd, pages), shuffled(rnd, pages)
	merged := func(readers int, gfns []uint64) (all []uint64) {
		n := len(gfns) / readers
		for i := range n {
			for r := range readers {
				all = append(all, gfns[r*n+i])
			}
		}
		return all
	}
	some := func(gfns []uint64) (all []uint64) { // three of four, and not in quite the same order
		for _, gfn := range gfns {
			if rnd.IntN(4) > 0 {
				all = append(all, gfn)
			}
		}
		for i := 8; i < len(all); i++ {
			if j := rnd.IntN(8); rnd.IntN(8) == 0 {
				all[i], all[i-j] = all[i-j], all[i]
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		layout, set, touches []uint64
		share                float64 // of the touches that may be READs
	}{
		"numbers":           {touches: upTo(pages), share: 0.02},
		"layout":            {layout: layout, touches: layout, share: 0.01},
		"set":               {set: set, touches: set, share: 0.01},
		"set of a layout":   {layout: layout, set: set, touches: set, share: 0.01},
		"layout with a set": {layout: layout, set: set, touches: layout, share: 0.01},
		"both":              {layout: layout, set: layout, touches: layout, share: 0.01},
		"four readers":      {layout: layout, touches: merged(4, layout), share: 0.02},
		"four of the set":   {layout: layout, set: set, touches: merged(4, set), share: 0.02},
		"not all":           {layout: layout, touches: some(layout), share: 0.03},
		"not all of a set":  {set: set, touches: some(set), share: 0.03},
	} {
		for _, late := range []*rand.Rand{nil, rand.New(rand.NewPCG(3, 4))} {
			p := newPlayer(t, pages, c.layout, c.set)
			p.play(c.touches, late)
			share := float64(p.reads) / float64(len(c.touches))
			if late != nil {
				share /= 4
			}
			t.Logf("%s, late %v: %d of %d touches are READs, %d pages pushed", name, late != nil, p.reads,
				len(c.touches), p.pushed)
			if share > c.share {
				t.Errorf("%s, late %v: %.3f of the touches are READs, want %.3f", name, late != nil, share, c.share)
			}
		}
	}
}

// Random reads are no streams: what is pushed for them is what the first blocks cost.
func TestStreamsRandom(t *testing.T) {
	const pages = 1 << 16
	rnd := rand.New(rand.NewPCG(3, 4))
	p := newPlayer(t, pages, shuffled(rnd, pages), shuffled(rnd, pages))
	p.play(shuffled(rnd, pages)[:10000], nil)
	t.Logf("%d READs, %d pages in %d blocks", p.reads, p.pushed, p.blocks)
	if p.pushed > 16*4*firstCredit {
		t.Errorf("%d pages are pushed for a reader that jumps", p.pushed)
	}
}

// So are random reads in a set that was laid out, although each page that is pushed for them is used in the
// end: none of them soon.
func TestStreamsRandomInASet(t *testing.T) {
	const pages = 1 << 16
	rnd := rand.New(rand.NewPCG(3, 4))
	layout := shuffled(rnd, pages)
	set := slices.Clone(layout[:pages/2])
	for name, of := range map[string][]uint64{"by layout": nil, "by layout and set": set} {
		p := newPlayer(t, pages, layout, of)
		jumps := slices.Clone(set)
		rnd.Shuffle(len(jumps), func(i, j int) { jumps[i], jumps[j] = jumps[j], jumps[i] })
		p.play(jumps, nil)
		t.Logf("%s: %d READs, %d pages in %d blocks", name, p.reads, p.pushed, p.blocks)
		if p.pushed > 16*4*firstCredit {
			t.Errorf("%s: %d pages are pushed for a reader that jumps", name, p.pushed)
		}
	}
}

// Programs that work side by side, each with some of its objects, which lie together in the layout, and with
// all pages of these in any order, get the blocks of what they touch.
func TestStreamsOfObjects(t *testing.T) {
	const pages, programs, object = 1 << 16, 8, 36
	rnd := rand.New(rand.NewPCG(5, 6))
	layout := shuffled(rnd, pages)
	var work [programs][]uint64
	for first := 0; first+object <= pages; first += object {
		if rnd.IntN(5) < 2 {
			gfns := slices.Clone(layout[first:][:object])
			rnd.Shuffle(object, func(i, j int) { gfns[i], gfns[j] = gfns[j], gfns[i] })
			who := rnd.IntN(programs)
			work[who] = append(work[who], gfns...)
		}
	}
	var touches []uint64
	for left := true; left; {
		left = false
		for i := range work {
			n := min(rnd.IntN(12), len(work[i]))
			touches, work[i] = append(touches, work[i][:n]...), work[i][n:]
			left = left || len(work[i]) > 0
		}
	}
	p := newPlayer(t, pages, layout, nil)
	p.play(touches, nil)
	used := float64(len(touches)-p.reads) / float64(p.pushed)
	t.Logf("%d touches, %d READs, %d pages pushed, %.2f of them used", len(touches), p.reads, p.pushed, used)
	if p.reads > len(touches)/5 || used < 0.7 {
		t.Errorf("%d READs for %d touches, %.2f of %d pages pushed are used", p.reads, len(touches), used, p.pushed)
	}
}
