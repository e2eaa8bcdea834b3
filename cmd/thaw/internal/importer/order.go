package importer

import (
	"cmp"
	"slices"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// rankOf orders the sources of a set by how well they tell the first touches after a restore: traced touches
// and what restores have taught, reads of a restore, others, and last the access bits, which show the use
// before the checkpoint and almost no order.
func rankOf(s wss.Source) int {
	switch s {
	case wss.SourceTrace, wss.SourceLearned:
		return 0
	case wss.SourceRead:
		return 1
	case wss.SourceAccess:
		return 3
	}
	return 2
}

// Ranked returns the runs of a set, those of better sources first, each source's in its order. A page
// may come more than once.
func Ranked(set *wss.Set) []wss.Run {
	runs := slices.Clone(set.Runs)
	slices.SortStableFunc(runs, func(a, b wss.Run) int {
		return cmp.Or(cmp.Compare(rankOf(a.Source), rankOf(b.Source)), cmp.Compare(a.Source, b.Source))
	})
	return runs
}

// Runs returns a set in the order in which it is prefetched: the pages of the best source come
// first. A page that several sources name is in there several times; the store takes the first.
func Runs(set *wss.Set) []index.Run {
	runs := make([]index.Run, len(set.Runs))
	for i, r := range Ranked(set) {
		runs[i] = index.Run{GFN: r.GFN, Count: r.Count}
	}
	return runs
}

// Wanted says when a restored machine touches pages of a set first, as far as it tells.
func Wanted(set *wss.Set) index.Wanted { return set.FirstTouches().Earliest }

// usedGroups returns the pages of a set as groups that lie together: by source, the best first, and
// of each source by vCPU. What one processor touches one after another belongs together; what two
// touch at the same time does not.
func usedGroups(set *wss.Set) []index.Group {
	type key struct {
		source wss.Source
		vcpu   int
	}
	var groups []index.Group
	at := map[key]int{}
	for _, r := range Ranked(set) {
		k := key{r.Source, r.VCPU}
		i, ok := at[k]
		if !ok {
			i = len(groups)
			at[k] = i
			groups = append(groups, index.Group{Kind: index.GroupUsed})
		}
		groups[i].Runs = append(groups[i].Runs, index.Run{GFN: r.GFN, Count: r.Count})
	}
	return groups
}

// within is the part of a set that a policy allows to be brought before a machine runs: the best
// sources' first touches first. The warning says what was left out; "": nothing.
func within(set *wss.Set, p wss.Policy) (runs []index.Run, warning string) {
	ranked := *set
	ranked.Runs = Ranked(set)
	front, large := p.Apply(&ranked)
	if large != nil {
		warning = large.Error() + "; the rest of it comes on demand"
	}
	return Runs(front), warning
}
