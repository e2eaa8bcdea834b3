package importer

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// Layout says how the order of an image's pages was determined.
type Layout struct {
	UsedGroups    int     `json:"used_groups"`      // of pages seen to be used: by source and vCPU
	Roots         int     `json:"page_table_roots"` // of them, found in the image
	AddressSpaces int     `json:"address_spaces"`   // that had pages of their own
	VirtualPages  uint64  `json:"virtual_pages"`    // in them
	Seconds       float64 `json:"seconds"`
}

// layoutOf is the order in which an image is stored, the pages seen to be used first. set may be
// nil. Page tables that cannot be understood are not an error: the pages are stored by number then.
func layoutOf(ctx context.Context, src index.Source, set *wss.Set, virtual bool, log *slog.Logger) (
	order []index.Group, st Layout, err error,
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
