package fs

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// What a lazy guest touches back to back in an order that the image has comes without READs, but for
// a few; one that jumps costs a few blocks. Counted on a real mount.
func TestAhead(t *testing.T) {
	const pages = 1 << 14
	rnd := rand.New(rand.NewPCG(1, 2))
	x := spec{Name: "a", Pages: pages, Seed: 1, LocalBlocks: true, InRAM: true}
	layout := (&fakeImage{spec: x, store: newFakeStore()}).layout()
	var set []uint64
	for _, i := range rnd.Perm(pages / 8) {
		first := uint64(i) * 8
		x.WS = append(x.WS, [2]uint64{first, 4})
		for gfn := first; gfn < first+4; gfn++ {
			set = append(set, gfn)
		}
	}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyLazy})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, pages)
	touch := func(what string, gfns []uint64) Counters {
		t.Helper()
		if err := b.Drop(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		c.do(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x})
		st := b.stats("a", "").Counters
		t.Logf("%s: %d of %d pages in READs, %d pushed", what, st.LazyPages, len(gfns), st.PushedPages)
		return st
	}
	for what, gfns := range map[string][]uint64{"layout": layout, "set": set} {
		// A pusher that gets no CPU falls behind, and so the best of some rounds counts.
		best := uint64(len(gfns))
		for round := 0; round < 10 && best*20 > uint64(len(gfns)); round++ {
			best = min(best, touch(what, gfns).LazyPages)
		}
		if best*20 > uint64(len(gfns)) {
			t.Errorf("%s: %d of %d pages in READs, want 5 %%", what, best, len(gfns))
		}
	}
	if st := touch("random", shuffled(rnd, pages)[:1000]); st.PushedPages > 16*4*firstCredit {
		t.Errorf("random: %d pages are pushed", st.PushedPages)
	}
}
