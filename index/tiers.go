package index

import (
	"cmp"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// A tierMap is what is known of how pages are used, by pack and slot, over all checkpoints of a store. It
// decides how pages are stored (package pack, Tier), and so only space and speed.
type tierMap struct {
	hot  map[uint64]*bitmap // in a working set, or of a checkpoint that is to be fast
	seen map[uint64]*bitmap // asked for in a restore

	// Of the leaf that is being looked at.
	branch branch
	leaf   leaf
}

func newTierMap() *tierMap {
	return &tierMap{hot: map[uint64]*bitmap{}, seen: map[uint64]*bitmap{}}
}

// addRoot notes what a checkpoint uses: the pages of its working set, and those that are known from
// elsewhere to have been asked for; all of them if it was imported to be fast.
func (t *tierMap) addRoot(n nodes, r *root, seen []Run) error {
	if r.Profile == ProfileFast.String() {
		return t.addAll(n, r.top)
	}
	if err := t.add(n, r.top, r.setRuns, t.hot); err != nil {
		return err
	}
	return t.add(n, r.top, seen, t.seen)
}

// addAll notes all pages of an image as hot.
func (t *tierMap) addAll(n nodes, top *mapTop) error {
	for _, ref := range top.branches {
		if ref == 0 {
			continue
		}
		if err := readBranch(n, ref, &t.branch); err != nil {
			return err
		}
		for _, c := range &t.branch {
			if c.zero() {
				continue
			}
			if _, err := readLeaf(n, c, &t.leaf); err != nil {
				return err
			}
			for _, ref := range &t.leaf {
				if ref != 0 {
					mark(t.hot, ref)
				}
			}
		}
	}
	return nil
}

// add notes the pages of runs, which may be in any order, overlap, and lie outside of the image.
func (t *tierMap) add(n nodes, top *mapTop, runs []Run, to map[uint64]*bitmap) error {
	runs = slices.Clone(runs)
	slices.SortFunc(runs, func(a, b Run) int { return cmp.Compare(a.GFN, b.GFN) })
	const none = ^uint64(0)
	atBranch, atLeaf := none, none
	next := uint64(0) // the pages before it were looked at: nobody says that runs do not overlap
	for _, run := range runs {
		gfn := max(run.GFN, next)
		for ; gfn-run.GFN < run.Count && gfn < top.pages; gfn++ {
			if b := gfn / branchPages; b != atBranch {
				if err := readBranch(n, top.branches[b], &t.branch); err != nil {
					return err
				}
				atBranch, atLeaf = b, none
			}
			if l := gfn / LeafPages; l != atLeaf {
				if _, err := readLeaf(n, t.branch[l%branchLeaves], &t.leaf); err != nil {
					return err
				}
				atLeaf = l
			}
			if ref := t.leaf[gfn%LeafPages]; ref != 0 {
				mark(to, ref)
			}
		}
		next = gfn
	}
	return nil
}

func mark(to map[uint64]*bitmap, ref uint64) {
	b := to[ref>>24]
	if b == nil {
		b = new(bitmap)
		to[ref>>24] = b
	}
	b.add(pack.Ref(ref).Slot())
}

// has says whether a slot of a pack is in one of the maps.
func has(of map[uint64]*bitmap, number uint64, slot uint32) bool {
	b := of[number]
	return b != nil && b.has(slot)
}
