package index

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

// countedNodes counts how many nodes are read.
type countedNodes struct {
	nodes
	read int
}

func (n *countedNodes) node(ref uint64, kind uint32) ([]byte, error) {
	n.read++
	return n.nodes.node(ref, kind)
}

// Runs that overlap are no more to look at than one that has all of them: anybody may have written them.
func TestTiersOfOverlappingRuns(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	mustImport(t, s, "a", writeSource(t, likeMemory(newRand(t), 3000).bytes(), nil), nil)
	root, err := s.readRoot(ctx, "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	packs := newLazyPacks(ctx, s.packs)
	defer packs.release()
	// An image of three times the branch that this one has.
	top := *root.top
	top.pages, top.branches = 3*branchPages, slices.Repeat(top.branches[:1], 3)
	root.top = &top
	look := func(runs ...Run) (read int, seen map[uint64]*bitmap) {
		t.Helper()
		n, m := &countedNodes{nodes: packs}, newTierMap()
		if err := m.addRoot(n, root, runs); err != nil {
			t.Fatal(err)
		}
		return n.read, m.seen
	}
	once, want := look(Run{5, 1 << 40})
	var many []Run
	for i := range uint64(200) {
		many = append(many, Run{5 + i%7*100, 1<<40 - i}, Run{2000, i}, Run{5, 1 << 32})
	}
	read, seen := look(many...)
	if read != once || once != 3 {
		t.Errorf("%d nodes are read, of one run %d", read, once)
	}
	if fmt.Sprint(pagesOf(seen)) != fmt.Sprint(pagesOf(want)) || len(want) == 0 {
		t.Errorf("%v, want %v", pagesOf(seen), pagesOf(want))
	}
}

func pagesOf(m map[uint64]*bitmap) map[uint64]bitmap {
	of := map[uint64]bitmap{}
	for n, b := range m {
		of[n] = *b
	}
	return of
}
