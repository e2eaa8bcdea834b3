package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// Values of the flag --layout of an import, for the pages in no working set.
const (
	layoutVirtual  = "virtual"  // by the guest's page tables, where there are any
	layoutPhysical = "physical" // by guest frame number
)

// parseLayout checks the flag; empty is the default.
func parseLayout(s string) (string, error) {
	switch s {
	case "", layoutVirtual:
		return layoutVirtual, nil
	case layoutPhysical:
		return s, nil
	}
	return "", exitcode.Errorf(exitcode.Usage, "unknown layout %q: want %s or %s", s, layoutVirtual,
		layoutPhysical)
}

// layoutStats says how the order of an image's pages was determined.
type layoutStats struct {
	UsedGroups    int     `json:"used_groups"`      // of pages seen to be used: by source and vCPU
	Roots         int     `json:"page_table_roots"` // of them, found in the image
	AddressSpaces int     `json:"address_spaces"`   // that had pages of their own
	VirtualPages  uint64  `json:"virtual_pages"`    // in them
	Seconds       float64 `json:"seconds"`
}

// layoutOf is the order in which an image is stored, the pages seen to be used first. set may be
// nil. Page tables that cannot be understood are not an error: the pages are stored by number then.
func layoutOf(ctx context.Context, src index.Source, set *wss.Set, virtual bool, log *slog.Logger) (
	order []index.Group, st layoutStats, err error,
) {
	start := time.Now()
	if set != nil {
		order = usedGroups(set)
	}
	st.UsedGroups = len(order)
	if virtual {
		spaces, roots, err := addressSpaces(ctx, src, log)
		if err != nil {
			return nil, st, fmt.Errorf("lay out by page tables: %w", err)
		}
		st.Roots, st.AddressSpaces = roots, len(spaces)
		for _, g := range spaces {
			order = append(order, g)
			for _, r := range g.Runs {
				st.VirtualPages += r.Count
			}
		}
	}
	st.Seconds = time.Since(start).Seconds()
	return order, st, nil
}

// addressSpaces returns the pages of each address space of the guest in virtual order.
func addressSpaces(ctx context.Context, src index.Source, log *slog.Logger) (
	groups []index.Group, roots int, err error,
) {
	mem, done, err := src.Open()
	if err != nil {
		return nil, 0, err
	}
	defer done()
	info, err := pagetable.ParseInfo(src.Info)
	if err != nil {
		log.Warn("page tables are looked for without the VMM's help", "err", err)
	}
	space, err := pagetable.NewSpace(mem, uint64(mem.Size())/index.PageSize, info.Regions)
	if err != nil {
		log.Warn("pages that were not seen to be used lie by number", "err", err)
		return nil, 0, nil
	}
	known := info.Known()
	if !info.Complete || len(known) == 0 {
		extents, err := mem.Extents()
		if err != nil {
			return nil, 0, err
		}
		in := make([]pagetable.Extent, len(extents))
		for i, r := range extents {
			in[i] = pagetable.Extent{Page: r.GFN, Count: r.Count}
		}
		found, err := space.Find(ctx, in)
		if err != nil {
			return nil, 0, err
		}
		known = pagetable.With(known, found)
	}
	spaces, err := space.Order(ctx, known)
	if err != nil {
		return nil, 0, err
	}
	for _, a := range spaces {
		g := index.Group{Kind: index.GroupVirtual, Runs: make([]index.Run, len(a.Runs))}
		for i, r := range a.Runs {
			g.Runs[i] = index.Run{GFN: r.Page, Count: r.Count}
		}
		groups = append(groups, g)
	}
	return groups, len(known), nil
}

// rankOf orders the sources of a set by how well they tell the first touches after a restore: traced
// touches, reads of a restore, others, and last the access bits, which show the use before the
// checkpoint and almost no order.
func rankOf(s wss.Source) int {
	switch s {
	case wss.SourceTrace:
		return 0
	case wss.SourceRead:
		return 1
	case wss.SourceAccess:
		return 3
	}
	return 2
}

// byRank returns the runs of a set, those of better sources first, each source's in its order. A page
// may come more than once.
func byRank(set *wss.Set) []wss.Run {
	runs := slices.Clone(set.Runs)
	slices.SortStableFunc(runs, func(a, b wss.Run) int {
		return cmp.Or(cmp.Compare(rankOf(a.Source), rankOf(b.Source)), cmp.Compare(a.Source, b.Source))
	})
	return runs
}

// workingSetRuns returns a set in the order in which it is prefetched: the pages of the best source come
// first. A page that several sources name is in there several times; the store takes the first.
func workingSetRuns(set *wss.Set) []index.Run {
	runs := make([]index.Run, len(set.Runs))
	for i, r := range byRank(set) {
		runs[i] = index.Run{GFN: r.GFN, Count: r.Count}
	}
	return runs
}

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
	for _, r := range byRank(set) {
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
