package index

import (
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// treeWriter makes the page map of a new image: leaf by leaf, ascending. What an older map has
// already is shared with it: a branch or leaf of the parent that did not change, a leaf or branch
// of any checkpoint with the same content. A leaf of the parent that changed little is stored as
// the difference from it.
//
// Nodes are kept until finish, because they are stored behind the pages that they refer to. A node
// takes as much memory there as in a pack.
type treeWriter struct {
	pages  uint64
	hasher *pack.Hasher
	find   func(pack.Hash) (ref uint64, err error) // a stored node, by content; 0: none
	parent *parentTree                             // nil: none

	cur     *pendingBranch
	done    []*pendingBranch
	pending [][]byte          // codes of leaves
	known   map[pack.Hash]int // position in pending
	packs   map[uint64]bool   // that the map refers to
	last    uint64            // the pack noted last

	newLeaves, sharedLeaves int
}

// pendingBranch is a branch whose new leaves are not stored yet.
type pendingBranch struct {
	number uint64
	branch branch
	open   []openChild
}

type openChild struct {
	child   int // in the branch
	pending int // in treeWriter.pending
}

func newTreeWriter(pages uint64, h *pack.Hasher, find func(pack.Hash) (uint64, error),
	parent *parentTree) *treeWriter {
	return &treeWriter{
		pages: pages, hasher: h, find: find, parent: parent,
		known: map[pack.Hash]int{}, packs: map[uint64]bool{},
	}
}

// note remembers the pack of a ref of a page or node.
func (t *treeWriter) note(ref uint64) {
	if p := ref >> 24; p != 0 && p != t.last {
		t.packs[p] = true
		t.last = p
	}
}

// add takes the next leaf. Leaves that are all zero may be left out.
func (t *treeWriter) add(number uint64, refs *leaf) error {
	if *refs == (leaf{}) {
		return nil
	}
	if b := number / branchLeaves; t.cur == nil || t.cur.number != b {
		t.cur = &pendingBranch{number: b}
		t.done = append(t.done, t.cur)
	}
	for _, ref := range refs {
		t.note(ref)
	}
	i := int(number % branchLeaves)
	c, base, same, err := t.parent.leaf(number, refs)
	if err != nil {
		return err
	}
	if same {
		t.note(c.ref)
		t.note(base.ref)
		t.sharedLeaves++
		t.cur.branch[i] = c
		return nil
	}
	code := appendFullLeaf(nil, refs)
	if base.ref != 0 {
		delta := appendDeltaLeaf(nil, base.ref, &base.refs, refs)
		if len(delta)*2 < len(code) {
			t.note(base.ref)
			code = delta
		}
	}
	return t.put(i, code)
}

// put makes a leaf's code the child i of the present branch.
func (t *treeWriter) put(i int, code []byte) error {
	if len(code) <= maxInline {
		t.newLeaves++
		t.cur.branch[i] = child{inline: code}
		return nil
	}
	hash, named := nodeHash(t.hasher, kindLeaf, code)
	if named {
		if n, ok := t.known[hash]; ok {
			t.sharedLeaves++
			t.cur.open = append(t.cur.open, openChild{i, n})
			return nil
		}
		ref, err := t.find(hash)
		if err != nil {
			return err
		}
		if ref != 0 {
			t.note(ref)
			t.sharedLeaves++
			t.cur.branch[i] = child{ref: ref}
			return nil
		}
		t.known[hash] = len(t.pending)
	}
	t.newLeaves++
	t.cur.open = append(t.cur.open, openChild{i, len(t.pending)})
	t.pending = append(t.pending, code)
	return nil
}

// finish stores the new nodes by store and returns the branches of the map.
func (t *treeWriter) finish(store func(kind uint32, code []byte) (ref uint64, err error)) (
	branches []uint64, err error,
) {
	refs := make([]uint64, len(t.pending))
	for i, code := range t.pending {
		if refs[i], err = store(kindLeaf, code); err != nil {
			return nil, err
		}
		t.note(refs[i])
	}
	branches = make([]uint64, branchesOf(t.pages))
	for _, b := range t.done {
		for _, o := range b.open {
			b.branch[o.child] = child{ref: refs[o.pending]}
		}
		code := b.branch.append(nil)
		hash, _ := nodeHash(t.hasher, kindBranch, code)
		ref, err := t.find(hash)
		if err != nil {
			return nil, err
		}
		if ref == 0 {
			if ref, err = store(kindBranch, code); err != nil {
				return nil, err
			}
		}
		t.note(ref)
		branches[b.number] = ref
	}
	return branches, nil
}

// parentTree walks the page map of an older image while a new one is written.
type parentTree struct {
	nodes    nodes
	branches []uint64
	leave    map[uint64]bool // packs whose nodes are not to be used any more; nil: none
	loaded   uint64          // number of the branch in cur, plus 1
	cur      branch
}

// baseLeaf is a full leaf in a record of its own, from which a new one may be a difference.
type baseLeaf struct {
	ref  uint64
	refs leaf
}

// leaf compares the parent's leaf with refs. If they are the same, c is the child to share;
// otherwise base is the leaf to store a difference from, if there is one.
func (p *parentTree) leaf(number uint64, refs *leaf) (
	c child, base baseLeaf, same bool, err error,
) {
	b := number / branchLeaves
	if p == nil || b >= uint64(len(p.branches)) || p.branches[b] == 0 {
		return child{}, baseLeaf{}, false, nil
	}
	if p.loaded != b+1 {
		p.loaded = 0
		if err := readBranch(p.nodes, p.branches[b], &p.cur); err != nil {
			return child{}, baseLeaf{}, false, fmt.Errorf("read parent's page map: %w", err)
		}
		p.loaded = b + 1
	}
	c = p.cur[number%branchLeaves]
	if c.zero() {
		return c, baseLeaf{}, false, nil
	}
	var was leaf
	ref, err := readLeaf(p.nodes, c, &was)
	if err != nil {
		return c, baseLeaf{}, false, fmt.Errorf("read parent's page map: %w", err)
	}
	if p.leave[c.ref>>24] || p.leave[ref>>24] {
		return child{}, baseLeaf{}, false, nil
	}
	if was == *refs {
		return c, baseLeaf{ref: ref}, true, nil
	}
	switch {
	case ref != 0:
		// The parent's leaf is a difference itself: from the same base.
		code, err := p.nodes.node(ref, kindLeaf)
		if err != nil {
			return c, baseLeaf{}, false, fmt.Errorf("read parent's page map: %w", err)
		}
		base.ref = ref
		if _, err := decodeLeaf(p.nodes, code, &base.refs); err != nil {
			return c, baseLeaf{}, false, fmt.Errorf("read parent's page map: %w", err)
		}
	case c.ref != 0:
		base = baseLeaf{c.ref, was}
	}
	return c, base, false, nil
}
