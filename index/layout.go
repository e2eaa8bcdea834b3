package index

import "fmt"

// Group is pages that should be stored together, in the order in which they should be stored. No
// locality block has pages of two groups.
//
// Good groups are, the best first: for each virtual CPU the pages that it touched after the checkpoint,
// in the order of first touch; then for each address space its pages, in the order of their virtual
// addresses.
type Group struct {
	Kind GroupKind
	Runs []Run
}

// GroupKind says what is known of the pages of a group.
type GroupKind string

const (
	// GroupUsed: they were seen to be used, in this order.
	GroupUsed GroupKind = "used"
	// GroupVirtual: they are neighbours in an address space of the guest.
	GroupVirtual GroupKind = "virtual"
)

// Layout says in which order the pages of an image were stored.
type Layout string

const (
	// LayoutPhysical: by guest frame number alone. Neighbours in a block are physical neighbours.
	LayoutPhysical Layout = "physical"
	// LayoutVirtual: in groups, all of them of virtual neighbours.
	LayoutVirtual Layout = "virtual"
	// LayoutTrace: in groups, some of pages that were seen to be used together.
	LayoutTrace Layout = "trace"
)

// Local says whether the pages of a block are likely to be used together, so that it is worth reading
// all of them when one is needed.
func (l Layout) Local() bool { return l != LayoutPhysical }

// layoutOf returns the layout that groups make; none of them is empty.
func layoutOf(order []Group) Layout {
	l := LayoutPhysical
	for _, g := range order {
		if g.Kind == GroupUsed {
			return LayoutTrace
		}
		l = LayoutVirtual
	}
	return l
}

// cleanGroups keeps each page only in the first group that has it, and leaves out groups that are empty
// then. The pages of all groups are added to seen.
func cleanGroups(order []Group, pages uint64, seen *gfnSet) (out []Group, err error) {
	for i, g := range order {
		if g.Kind != GroupUsed && g.Kind != GroupVirtual {
			return nil, fmt.Errorf("layout: group %d is of kind %q", i, g.Kind)
		}
		if g.Runs, err = newPages(g.Runs, pages, seen); err != nil {
			return nil, fmt.Errorf("layout: group %d: %w", i, err)
		}
		if len(g.Runs) > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}

// refTable holds refs by guest frame number, eight bytes for each page of a leaf that has any.
type refTable map[uint64]*leaf

func (t refTable) set(gfn, ref uint64) {
	l := t[gfn/LeafPages]
	if l == nil {
		l = new(leaf)
		t[gfn/LeafPages] = l
	}
	l[gfn%LeafPages] = ref
}

// get returns the ref of a page, 0 if none was set.
func (t refTable) get(gfn uint64) uint64 {
	if l := t[gfn/LeafPages]; l != nil {
		return l[gfn%LeafPages]
	}
	return 0
}
