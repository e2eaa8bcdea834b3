package index

import (
	"context"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// orphans are the pages of packs that no root lists: what an interrupted gatherer has left is among them. The
// versions of a page that all lie in one of them were brought together already. What of it is not needed goes
// with the next collection, as the rest of an interrupted import does.
type orphans struct {
	number map[uint64]uint64      // identities of the packs
	refs   map[pack.Hash][]uint64 // of a page, one in each pack that has it
	whole  map[uint64]bool        // packs that were read whole: whether they are
	raw    *rawHashes             // of pages that roots refer to
}

// newOrphans finds them: the newest packs, with as many pages as one gatherer moves. A pack that cannot be
// read is none.
func newOrphans(ctx context.Context, g *gatherer) *orphans {
	o := &orphans{
		number: map[uint64]uint64{}, refs: map[pack.Hash][]uint64{}, whole: map[uint64]bool{},
		raw: newRawHashes(g.packs),
	}
	numbers, _ := g.s.packs.numbers()
	left := int(g.s.limits.packPages)
	for _, n := range slices.Backward(numbers) {
		if _, listed := searchUint64(g.r.c.listed, n); listed {
			continue
		}
		p, done, err := g.s.packs.use(ctx, n, 0)
		if err != nil {
			continue
		}
		if p.Slots() > 0 && p.Slots() <= left {
			o.add(p)
			left -= p.Slots()
		}
		done()
	}
	return o
}

func (o *orphans) add(p *pack.Reader) {
	hashes, err := p.Hashes()
	if err != nil {
		return
	}
	o.number[p.Number()] = p.ID()
	for slot, h := range hashes {
		if !p.Dead(uint32(slot)) {
			o.refs[h] = append(o.refs[h], uint64(pack.MakeRef(p.Number(), uint32(slot))))
		}
	}
}

// adopt lets roots refer to a family as an interrupted gatherer has left it, if one has.
func (g *gatherer) adopt(ctx context.Context, f family) (bool, error) {
	o := g.orphans
	if len(o.refs) == 0 {
		return false, nil
	}
	copies := make([]uint64, 0, f.to-f.from)
	for _, ref := range g.refs[f.from:f.to] {
		hash, err := o.raw.of(ref)
		if err != nil {
			if isDamage(err) {
				err = nil
			}
			return false, err
		}
		copies = append(copies, o.in(hash, copies))
	}
	number := copies[0] >> 24
	if slices.ContainsFunc(copies, func(ref uint64) bool { return ref>>24 != number }) || number == 0 {
		return false, nil
	}
	if whole, err := g.isSound(ctx, number); !whole || err != nil {
		return false, err
	}
	for i, ref := range g.refs[f.from:f.to] {
		g.moved[ref] = copies[i]
	}
	g.out.ids[number] = o.number[number]
	g.pairs += g.apart(f)
	return true, nil
}

// in returns the copy of a page that lies in the pack of other copies, or else in the newest pack; 0 if there
// is none.
func (o *orphans) in(hash pack.Hash, others []uint64) uint64 {
	refs := o.refs[hash]
	if len(refs) == 0 {
		return 0
	}
	for _, ref := range refs {
		if len(others) > 0 && ref>>24 == others[0]>>24 {
			return ref
		}
	}
	return refs[0]
}

// isSound reads a pack before the first root refers to it.
func (g *gatherer) isSound(ctx context.Context, number uint64) (bool, error) {
	whole, known := g.orphans.whole[number]
	if known {
		return whole, nil
	}
	p, done, err := g.s.packs.use(ctx, number, g.orphans.number[number])
	if err != nil {
		if isDamage(err) {
			err = nil
		}
		return false, err
	}
	defer done()
	whole, err = g.s.isWhole(ctx, p)
	if err == nil {
		g.orphans.whole[number] = whole
	}
	if whole {
		g.out.bytes += p.Size()
	}
	return whole, err
}
