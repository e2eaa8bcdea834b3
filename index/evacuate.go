package index

import (
	"context"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// evacuate copies what is left of packs of which most pages were copied, because dead pages take their hashes
// as long as a pack is there. A pack that has parts of files stays.
func (g *gatherer) evacuate(ctx context.Context) error {
	copied := map[uint64]int{}
	for ref := range g.moved {
		copied[ref>>24]++
	}
	for _, number := range sortedKeys(copied) {
		live := g.r.c.live.packs[number]
		if p, err := g.packs.get(number); err != nil || live.segment || hasFiles(p, live) {
			continue
		}
		var rest []uint64
		for slot := range live.slots.all() {
			ref := uint64(pack.MakeRef(number, slot))
			if _, ok := g.moved[ref]; !ok {
				rest = append(rest, ref)
			}
		}
		if n := copied[number]; len(rest) > n || len(g.moved)+len(rest) > int(g.s.limits.packPages) {
			continue
		}
		if err := g.copyAll(ctx, rest); err != nil {
			return err
		}
		g.left[number] = !slices.ContainsFunc(rest, func(ref uint64) bool {
			_, ok := g.moved[ref]
			return !ok
		})
	}
	return nil
}

// hasFiles says whether parts of files are needed of a pack.
func hasFiles(p *pack.Reader, live *livePack) bool {
	for i := range live.records.all() {
		if int(i) >= p.Records() || p.Record(int(i)).Kind == kindFile {
			return true
		}
	}
	return false
}

// copyAll copies cold pages, as far as they can be read.
func (g *gatherer) copyAll(ctx context.Context, refs []uint64) error {
	for part := range slices.Chunk(refs, lookPages) {
		g.refs = g.refs[:0]
		for _, ref := range part {
			cold, err := g.cold(ref)
			if err != nil {
				return err
			}
			if cold {
				g.refs = append(g.refs, ref)
			}
		}
		if err := g.read(ctx); err != nil {
			return err
		}
		for i, ref := range g.refs {
			if g.bad[i] {
				continue
			}
			var err error
			if g.moved[ref], err = g.out.add(ctx, g.page(i), g.hashes[i]); err != nil {
				return err
			}
		}
		if err := g.out.flush(); err != nil {
			return err
		}
	}
	return nil
}
