package index

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

func (g *gatherer) page(i int) []byte { return g.pages[i*PageSize:][:PageSize] }

// read reads the pages of g.refs, as they lie, and compares each with its hash.
func (g *gatherer) read(ctx context.Context) error {
	if len(g.pages) < len(g.refs)*PageSize {
		g.pages = make([]byte, len(g.refs)*PageSize)
	}
	n := len(g.refs)
	g.hashes, g.bad = slices.Grow(g.hashes[:0], n)[:n], slices.Grow(g.bad[:0], n)[:n]
	byPack := map[uint64][]int{}
	for i, ref := range g.refs {
		byPack[ref>>24] = append(byPack[ref>>24], i)
	}
	for _, number := range sortedKeys(byPack) {
		if err := g.r.wait(ctx); err != nil {
			return err
		}
		err := g.readPack(number, byPack[number])
		if err != nil && !isDamage(err) {
			return err
		}
		for _, i := range byPack[number] {
			g.bad[i] = g.bad[i] || err != nil
		}
	}
	return ctx.Err()
}

// readPack reads the pages g.refs[i] that lie in one pack.
func (g *gatherer) readPack(number uint64, at []int) error {
	p, err := g.packs.get(number)
	if err != nil {
		return err
	}
	hashes, err := p.Hashes()
	if err != nil {
		return err
	}
	spots, hasher := p.Spots(), pack.NewHasher(g.s.key)
	spot := func(i int) uint32 { return spots.Of(pack.Ref(g.refs[i]).Slot()) }
	slices.SortFunc(at, func(a, b int) int { return cmp.Compare(spot(a), spot(b)) })
	var pages []byte // of a group
	var bad pack.BadSlots
	last, first, count := -1, uint32(0), uint32(0)
	for _, i := range at {
		group, ok := spots.GroupOf(spot(i))
		if g.bad[i] = !ok; !ok {
			continue
		}
		if group != last {
			first, count = spots.Group(group)
			pages = slices.Grow(pages[:0], int(count)*PageSize)[:int(count)*PageSize]
			p.ReadSpots(first, pages, &bad)
			last = group
		}
		if err := bad.Err(spot(i)); err != nil && !isDamage(err) && !errors.Is(err, pack.ErrDead) {
			return err
		}
		copy(g.page(i), pages[(spot(i)-first)*PageSize:])
		g.hashes[i] = hashes[pack.Ref(g.refs[i]).Slot()]
		g.bad[i] = bad.Err(spot(i)) != nil || hasher.Sum(g.page(i)) != g.hashes[i]
	}
	return nil
}
