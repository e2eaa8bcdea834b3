package index

import "slices"

// versionWalk goes through the page maps of checkpoints of one machine, side by side.
type versionWalk struct {
	nodes  nodes
	tops   []*mapTop // of the same number of pages
	branch []branch
	leaf   []leaf
	refs   []uint64
}

// each calls fn for each place at which the checkpoints have different pages that are not zero: with their
// refs, each once, in the order of the checkpoints. pause is called before each leaf that is looked at. It
// ends when end says so.
func (w *versionWalk) each(pause func() error, fn func(versions []uint64) error, end func() bool) error {
	for b := range w.tops[0].branches {
		same := true
		for _, top := range w.tops {
			same = same && top.branches[b] == w.tops[0].branches[b]
		}
		if same {
			continue
		}
		for k, top := range w.tops {
			if err := readBranch(w.nodes, top.branches[b], &w.branch[k]); err != nil {
				return err
			}
		}
		for i := range branchLeaves {
			if end() {
				return nil
			}
			if err := w.leaves(i, pause, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaves looks at leaf i of the present branches.
func (w *versionWalk) leaves(i int, pause func() error, fn func(versions []uint64) error) error {
	same := true
	for k := range w.branch {
		same = same && w.branch[k][i].same(w.branch[0][i])
	}
	if same {
		return nil
	}
	if err := pause(); err != nil {
		return err
	}
	for k := range w.branch {
		if k > 0 && w.branch[k][i].same(w.branch[k-1][i]) {
			w.leaf[k] = w.leaf[k-1]
			continue
		}
		if _, err := readLeaf(w.nodes, w.branch[k][i], &w.leaf[k]); err != nil {
			return err
		}
	}
	for p := range LeafPages {
		w.refs = w.refs[:0]
		for k := range w.leaf {
			if ref := w.leaf[k][p]; ref != 0 && !slices.Contains(w.refs, ref) {
				w.refs = append(w.refs, ref)
			}
		}
		if len(w.refs) > 1 {
			if err := fn(w.refs); err != nil {
				return err
			}
		}
	}
	return nil
}

// same says whether two children are the same node, or the same code.
func (c child) same(d child) bool { return c.ref == d.ref && slices.Equal(c.inline, d.inline) }
