package fs

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// The bitmap against a map, over random operations.
func TestBitmap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, pages := range []uint64{1, 63, 64, 65, 1000, chunkPages, 3*chunkPages + 17} {
		b, model := newBitmap(pages), map[uint64]bool{}
		for range 2000 {
			first := rnd.Uint64N(pages + 2)
			count := rnd.Uint64N(200)
			changed := 0
			add := rnd.IntN(2) == 0
			for gfn := first; gfn < min(first+count, pages); gfn++ {
				if model[gfn] != add {
					changed++
				}
				if add {
					model[gfn] = true
				} else {
					delete(model, gfn)
				}
			}
			got := 0
			if add {
				got = b.addRange(first, count)
			} else {
				got = b.removeRange(first, count)
			}
			if got != changed || b.len() != uint64(len(model)) {
				t.Fatalf("%d pages, [%d,+%d): %d changed, want %d; %d in, want %d",
					pages, first, count, got, changed, b.len(), len(model))
			}
			if page := rnd.Uint64N(pages + 100); b.has(page) != model[page] {
				t.Fatalf("has(%d) = %v", page, b.has(page))
			}
		}
		b.clear()
		if b.len() != 0 || b.has(0) {
			t.Error("clear leaves pages")
		}
	}
}

// Many goroutines add the same pages: each page is new to one of them.
func TestBitmapConcurrent(t *testing.T) {
	const pages = 2 * chunkPages
	b := newBitmap(pages)
	var wg sync.WaitGroup
	added := make([]int, 4)
	for i := range added {
		wg.Go(func() {
			for first := uint64(0); first < pages; first += 7 {
				added[i] += b.addRange(first, 7)
			}
		})
	}
	wg.Wait()
	if sum := added[0] + added[1] + added[2] + added[3]; sum != pages || b.len() != pages {
		t.Errorf("%d added, %d in", sum, b.len())
	}
}

// A number that is taken leads to the next, for the same thing always to the same.
func TestNodeCollision(t *testing.T) {
	tr := newTree()
	e := newEntry(Checkpoint{Name: "a", ID: "a"})
	want := e.child(fileMemory)
	id := nodeID(want.kind, want.checkpointID(), "", 0)
	tr.nodes[id] = &node{id: id, kind: kindStats, e: newEntry(Checkpoint{Name: "b", ID: "b"})}
	peeked := tr.peek(want)
	one, two := tr.lookup(e.child(fileMemory)), tr.lookup(e.child(fileMemory))
	if one != two || one.id == id || one.id != peeked || one.lookups != 2 {
		t.Errorf("%+v %+v, peeked %d", one, two, peeked)
	}
	if n := tr.forget(one.id, 1); n != nil {
		t.Error("forgotten with a lookup left")
	}
	if n := tr.forget(one.id, 1); n != one || tr.node(one.id) != nil {
		t.Errorf("forget: %+v", n)
	}
	if n := tr.forget(one.id, 1); n != nil {
		t.Error("forgotten twice")
	}
}

// Numbers are a function of content: they must not change between versions, or a server that takes
// over would not know what it is asked for.
func TestNodeIDs(t *testing.T) {
	got := []uint64{
		nodeID(kindMemory, "id", "", 0), nodeID(kindCloneMem, "id", "x", 0), nodeID(kindMemory, "id", "", 1),
	}
	want := []uint64{12575821477988710325, 6118420199934665839, 2941798384025551876}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDirOffsetsSurviveChanges(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a"}, spec{Name: "b"}, spec{Name: "c"}))
	read := func(off uint64, limit int) (names []string, next uint64) {
		s.list(&fuse.ReadIn{InHeader: fuse.InHeader{NodeId: 1}, Offset: off},
			func(e fuse.DirEntry, _ *node) bool {
				if len(names) == limit {
					return false
				}
				names = append(names, e.Name)
				next = e.Off
				return true
			})
		return names, next
	}
	all, _ := read(0, 100)
	first, off := read(0, 4)
	s.store.(*fakeStore).set(spec{Name: "a"}, spec{Name: "b"}, spec{Name: "c"}, spec{Name: "d"})
	if err := s.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	rest, _ := read(off, 100)
	rest = slices.DeleteFunc(rest, func(n string) bool { return n == "d" })
	if d := cmp.Diff(all, append(first, rest...)); d != "" {
		t.Error(d)
	}
}
