package index

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/pack"
)

// memNodes stores nodes in a map, as pack 500.
type memNodes struct {
	m    map[uint64][]byte
	kind map[uint64]uint32
}

const memNodesPack = 500

func newMemNodes() *memNodes { return &memNodes{map[uint64][]byte{}, map[uint64]uint32{}} }

func (n *memNodes) store(kind uint32, code []byte) (uint64, error) {
	ref := uint64(memNodesPack)<<24 | uint64(len(n.m))
	n.m[ref], n.kind[ref] = slices.Clone(code), kind
	return ref, nil
}

func (n *memNodes) node(ref uint64, kind uint32) ([]byte, error) {
	if code, ok := n.m[ref]; ok && n.kind[ref] == kind {
		return code, nil
	}
	return nil, &CorruptError{Pack: "mem", What: "node"}
}

// treeTest makes maps that share nodes, as the imports of a store do.
type treeTest struct {
	nodes *memNodes
	known map[pack.Hash]uint64
}

func (tt *treeTest) find(h pack.Hash) (uint64, error) { return tt.known[h], nil }

// write makes the map of refs; parent may be nil.
func (tt *treeTest) write(t *testing.T, refs map[uint64]uint64, pages uint64,
	parent *mapTop) (*mapTop, *treeWriter) {
	t.Helper()
	var pt *parentTree
	if parent != nil {
		pt = &parentTree{nodes: tt.nodes, branches: parent.branches}
	}
	w := newTreeWriter(pages, pack.NewHasher(pack.HashKey{}), tt.find, pt)
	byLeaf := map[uint64]*leaf{}
	for gfn, ref := range refs {
		if byLeaf[gfn/LeafPages] == nil {
			byLeaf[gfn/LeafPages] = new(leaf)
		}
		byLeaf[gfn/LeafPages][gfn%LeafPages] = ref
	}
	for _, n := range sortedKeys(byLeaf) {
		if err := w.add(n, byLeaf[n]); err != nil {
			t.Fatal(err)
		}
	}
	stored := map[pack.Hash]uint64{}
	branches, err := w.finish(func(kind uint32, code []byte) (uint64, error) {
		ref, err := tt.nodes.store(kind, code)
		if h, named := nodeHash(w.hasher, kind, code); named {
			stored[h] = ref
		}
		return ref, err
	})
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(tt.known, stored)
	return &mapTop{pages: pages, branches: branches, packs: sortedKeys(w.packs)}, w
}

// randomMap is the refs of a sparse image: runs in a few packs.
func randomMap(r *rand.Rand, pages uint64) map[uint64]uint64 {
	refs := map[uint64]uint64{}
	for range 1 + r.IntN(60) {
		gfn := r.Uint64N(pages)
		ref := (1+r.Uint64N(4))<<24 | r.Uint64N(1<<16)
		for range 1 + r.IntN(1<<r.IntN(10)) {
			if gfn == pages {
				break
			}
			refs[gfn] = ref
			gfn++
			ref++
			if r.IntN(20) == 0 {
				ref = (1+r.Uint64N(4))<<24 | r.Uint64N(1<<16)
			}
		}
	}
	return refs
}

func TestTreeAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	for range 40 {
		tt := &treeTest{newMemNodes(), map[pack.Hash]uint64{}}
		pages := 1 + r.Uint64N(3*branchPages)
		refs := randomMap(r, pages)
		var parent *mapTop
		for range 4 {
			top, _ := tt.write(t, refs, pages, parent)
			again, err := parseMapTop(top.append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(top, again, cmp.AllowUnexported(mapTop{})); d != "" {
				t.Fatal(d)
			}
			sameMap(t, tt.nodes, top, refs)
			parent = top
			for range r.IntN(30) {
				gfn := r.Uint64N(pages)
				refs[gfn] = (5+r.Uint64N(2))<<24 | r.Uint64N(1<<16)
				if r.IntN(3) == 0 {
					delete(refs, gfn)
				}
			}
		}
	}
}

func sameMap(t *testing.T, n nodes, top *mapTop, refs map[uint64]uint64) {
	t.Helper()
	m, err := loadPageMap(context.Background(), n, top, top.packs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.data != uint64(len(refs)) {
		t.Fatalf("%d pages, want %d", m.data, len(refs))
	}
	for gfn, ref := range refs {
		if got := m.ref(gfn); got != ref {
			t.Fatalf("page %d: ref %#x, want %#x", gfn, got, ref)
		}
	}
	var last, count uint64
	m.each(func(gfn, place uint64) {
		if count > 0 && gfn <= last || m.packs[place>>24]<<24|place&(1<<24-1) != refs[gfn] {
			t.Fatalf("each: page %d after %d at %#x", gfn, last, place)
		}
		last = gfn
		count++
	})
	if count != m.data {
		t.Fatalf("each gives %d pages of %d", count, m.data)
	}
	rev := newReverseMap(m, make([]pack.Spots, len(m.packs)))
	for i := range rev.packs {
		for _, x := range rev.packs[i] {
			if refs[x.gfn()] != m.packs[i]<<24|uint64(x.spot()) {
				t.Fatalf("reverse map: page %d", x.gfn())
			}
		}
	}
	zeros := uint64(0)
	m.zeroRuns(func(_, n uint64) bool { zeros += n; return true })
	if zeros+m.data != m.pages {
		t.Fatalf("%d zero pages and %d others of %d", zeros, m.data, m.pages)
	}
	sameExtents(t, m, refs)
}

// A page that changes costs its leaf a few bytes, not the leaf.
func TestTreeDelta(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 1))
	tt := &treeTest{newMemNodes(), map[pack.Hash]uint64{}}
	refs := map[uint64]uint64{}
	for gfn := range uint64(branchPages) {
		refs[gfn] = 1<<24 | r.Uint64N(1<<20) // as badly as can be
	}
	top, _ := tt.write(t, refs, branchPages, nil)
	before := 0
	for _, code := range tt.nodes.m {
		before += len(code)
	}
	for range 3 {
		for i := range 10 {
			refs[r.Uint64N(branchPages)] = 2<<24 | uint64(i)
		}
		var w *treeWriter
		top, w = tt.write(t, refs, branchPages, top)
		if w.newLeaves > 10 {
			t.Errorf("%d new leaves for 10 changed pages", w.newLeaves)
		}
		sameMap(t, tt.nodes, top, refs)
	}
	after := 0
	for _, code := range tt.nodes.m {
		after += len(code)
	}
	if grown := after - before; grown > 3*(10*64+2048) {
		t.Errorf("three times 10 pages took %d bytes; the map has %d", grown, before)
	}
}

func FuzzMapTop(f *testing.F) {
	f.Add((&mapTop{pages: 1000, branches: []uint64{7<<24 | 3}, packs: []uint64{2, 7}, segment: 7}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		top, err := parseMapTop(b)
		if err != nil {
			return
		}
		again, err := parseMapTop(top.append(nil))
		if err != nil || !cmp.Equal(top, again, cmp.AllowUnexported(mapTop{})) {
			t.Fatalf("%+v became %+v, %v", top, again, err)
		}
	})
}

func FuzzRuns(f *testing.F) {
	f.Add(appendRuns(nil, []Run{{5, 1}, {3, 2}, {900, 100}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		runs, err := parseRuns(b)
		if err != nil {
			return
		}
		if again, err := parseRuns(appendRuns(nil, runs)); err != nil || !slices.Equal(runs, again) {
			t.Fatalf("%v became %v, %v", runs, again, err)
		}
	})
}

// Whatever a branch and its leaves hold: a map or an error.
func FuzzPageMap(f *testing.F) {
	r := rand.New(rand.NewPCG(13, 1))
	for range 5 {
		tt := &treeTest{newMemNodes(), map[pack.Hash]uint64{}}
		tt.writeSeeds(f, randomMap(r, 4096))
	}
	f.Fuzz(func(t *testing.T, branchCode, leafCode []byte) {
		n := newMemNodes()
		ref, _ := n.store(kindLeaf, leafCode)
		top, _ := n.store(kindBranch, branchCode)
		packs := []uint64{1, 2, 3, 4, memNodesPack}
		m, err := loadPageMap(context.Background(), n,
			&mapTop{pages: 4096 - 3, branches: []uint64{top}}, packs, nil)
		lost := &lostPages{}
		if _, err := loadPageMap(context.Background(), n,
			&mapTop{pages: 4096 - 3, branches: []uint64{top}}, packs, lost); err != nil {
			t.Fatalf("damage is to be noted: %v", err)
		}
		if (err != nil) != (lost.count > 0) || lost.count != countPages(lost.runs()) {
			t.Fatalf("%v, and %d pages are lost", err, lost.count)
		}
		if err != nil {
			var c *CorruptError
			if !errors.As(err, &c) {
				t.Fatalf("%v (leaf %#x)", err, ref)
			}
			return
		}
		m.each(func(gfn, place uint64) {
			if got, ok := m.place(gfn); !ok || got != place {
				t.Fatalf("page %d: %#x, %v; each says %#x", gfn, got, ok, place)
			}
		})
		newReverseMap(m, make([]pack.Spots, len(m.packs)))
	})
}

func (tt *treeTest) writeSeeds(f *testing.F, refs map[uint64]uint64) {
	top, _ := tt.write(&testing.T{}, refs, 4096, nil)
	branchCode := tt.nodes.m[top.branches[0]]
	for ref, code := range tt.nodes.m {
		if ref != top.branches[0] {
			f.Add(branchCode, code)
		}
	}
}
