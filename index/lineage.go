package index

import (
	"cmp"
	"fmt"
	"slices"
)

// lineages are the checkpoints of each machine of which there are several, as far as that is known, in the
// order in which they were made.
func lineages(entries []*catalogEntry) (all [][]*catalogEntry) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b *catalogEntry) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	a := newAncestry()
	of := map[*catalogEntry]int{} // position in all
	for _, e := range entries {
		from := a.formerOf(e)
		a.add(e)
		if from == nil {
			of[e] = len(all)
			all = append(all, []*catalogEntry{e})
			continue
		}
		of[e] = of[from]
		all[of[e]] = append(all[of[e]], e)
	}
	return slices.DeleteFunc(all, func(l []*catalogEntry) bool { return len(l) < 2 })
}

// ancestry is the checkpoints that were made earlier, by what later ones have in common with them. What it
// takes to find one's former is the packs that it lists, however many others there are.
type ancestry struct {
	named  map[string]*catalogEntry
	lister map[packOfSize]int // of each pack: position of the last checkpoint that lists it
	order  []*catalogEntry
}

// packOfSize is a pack as checkpoints list it that have so much memory.
type packOfSize struct {
	number uint64
	memory int64
}

func newAncestry() *ancestry {
	return &ancestry{named: map[string]*catalogEntry{}, lister: map[packOfSize]int{}}
}

func (a *ancestry) add(e *catalogEntry) {
	a.named[e.Name] = e
	for _, n := range e.packs {
		a.lister[packOfSize{n, e.MemoryBytes}] = len(a.order)
	}
	a.order = append(a.order, e)
}

// formerOf returns the checkpoint that the import of e took for its parent, or else the last one that has a
// pack in common with e; nil if there is none with as much memory.
func (a *ancestry) formerOf(e *catalogEntry) *catalogEntry {
	if x := a.named[e.Parent]; x != nil && x.MemoryBytes == e.MemoryBytes {
		return x
	}
	last := -1
	for _, n := range e.packs {
		if at, ok := a.lister[packOfSize{n, e.MemoryBytes}]; ok {
			last = max(last, at)
		}
	}
	if last < 0 {
		return nil
	}
	return a.order[last]
}

// sameIDs returns the identities of all packs; there must be no two opinions on one.
func sameIDs(entries []*catalogEntry) (map[uint64]uint64, error) {
	ids := map[uint64]uint64{}
	for _, e := range entries {
		for number, id := range e.ids {
			if was := ids[number]; was != 0 && id != 0 && was != id {
				return nil, fmt.Errorf("checkpoint %s: pack %d: %w", e.Name, number, ErrOtherPack)
			}
			if id != 0 {
				ids[number] = id
			}
		}
	}
	return ids, nil
}
