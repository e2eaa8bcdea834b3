package fs

import (
	"math/rand/v2"
	"testing"
)

// Two goroutines push one page at once. When one of them has ended, a READ of the page does not wait for what
// the other brings, which may wait for it.
func TestReadBesideTwoPushes(t *testing.T) {
	r := newKeepRig(t, Options{Policy: PolicyLazy})
	id := r.find("")
	r.openFile(id)
	m := r.memoryOf(r.tree.node(id))
	pushes := make(chan chan struct{})
	r.k.stall = func(uint64) {
		goOn := make(chan struct{})
		pushes <- goOn
		<-goOn
	}
	data := make([]byte, PageSize)
	r.of.fillPage(5, data)
	done := make(chan error)
	push := func() {
		done <- r.push(m, m.sess.Load(), &Piece{GFNs: []uint64{5}, Pages: data}, func(uint64, uint64) {})
	}
	go push()
	one := <-pushes
	go push()
	two := <-pushes
	close(one)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.coming.begin([]uint64{5})
	defer m.coming.end([]uint64{5})
	r.id = id
	r.read(5, 1, 0)
	m.coming.mu.Lock()
	waited := m.coming.done != nil
	m.coming.mu.Unlock()
	if waited {
		t.Error("a READ has waited for a page that is being stored")
	}
	close(two)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The runs being stored against a count for each page, over random pushes that begin and end.
func TestStoring(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s storing
	var open []pageRun
	count := map[uint64]int{}
	for range 2000 {
		if len(open) < 4 && rnd.IntN(2) == 0 {
			r := pageRun{rnd.Uint64N(20), 1 + rnd.Uint64N(6)}
			open = append(open, r)
			s.begin(r.first, r.count)
			for gfn := range r.count {
				count[r.first+gfn]++
			}
		} else if len(open) > 0 {
			i := rnd.IntN(len(open))
			r := open[i]
			open = append(open[:i], open[i+1:]...)
			s.end(r.first, r.count)
			for gfn := range r.count {
				count[r.first+gfn]--
			}
		}
		for gfn := range uint64(30) {
			if s.has(gfn) != (count[gfn] > 0) {
				t.Fatalf("page %d: %v, with %v under way", gfn, s.has(gfn), open)
			}
		}
	}
}
