package index

import (
	"context"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// A gatherer brings the versions of pages together. When a machine is saved again, a page that has changed a
// little is stored in another pack than its former content, and takes as much as if it was new, because pages
// are compressed together only within a pack. So pages of which several checkpoints of a machine have
// different versions at one place are copied, all of their versions, into a new pack, and are put into
// clusters there; then each checkpoint that refers to one of them gets a new generation of its root, whose
// page map refers to the copy. What they were copied from is dead then, and goes as dead pages go.
//
// Nothing of this is new to a reader, and no pack depends on another one. At any time each root refers to
// pages that are there: the new pack is durable, and was read back, before the first root refers to it; what
// a crash leaves is a pack that nobody refers to yet, or some roots that refer to the old copies.
//
// Which versions belong together depends on the checkpoints only, not on where pages lie: so pages that were
// brought together stay together, and a second gatherer finds nothing to do.
//
// One that is interrupted leaves the packs that it has filled, and if it can the one that it was filling.
// Nobody refers to them, but the next one finds the pages in them, and need not copy them again: see orphans.
type gatherer struct {
	r     *repacker
	s     *Store
	packs *lazyPacks
	home  map[uint64]*bitmap // pages whose family was found
	used  map[uint64]*bitmap // of each pack: pages that stay where they are
	// entries get new generations. A checkpoint whose root itself is damaged, or a newer one than that which
	// counts, goes on referring to what was copied.
	entries []*catalogEntry
	orphans *orphans

	refs     []uint64 // of the families that are looked at next
	families []family
	pages    []byte
	hashes   []pack.Hash
	bad      []bool // pages that cannot be read

	out   gathered
	moved map[uint64]uint64 // refs of pages: what they become
	left  map[uint64]bool   // packs of which nothing is needed then
	pairs int               // pages that come to a version of theirs in another pack
	full  bool              // as many pages are moved as one gatherer moves
	named bool              // a root may refer to what was written
}

// family is versions of a page: those from..to-1 of gatherer.refs, as they followed one another.
type family struct{ from, to int }

const (
	// maxVersions is how many versions of a page are stored together: the pages of all of them are written
	// again when another one comes.
	maxVersions = 8
	// minGather is how many pages must come to a version of theirs for a new pack to be worth it.
	minGather = 256
	// lookPages is how many pages are looked at together (16 MiB).
	lookPages = 4096
	// gatherPart is how many pages are put into one pack: what is lost at most when it is killed.
	gatherPart = 1 << 14
)

// gather fills packs with versions of pages that belong together; false if there are too few of them.
func (r *repacker) gather(ctx context.Context) (did bool, err error) {
	if len(r.o.Names) > 0 || r.o.Memory.gathered {
		return false, nil
	}
	g := &gatherer{
		r: r, s: r.s, packs: newLazyPacks(ctx, r.s.packs),
		home: map[uint64]*bitmap{}, used: map[uint64]*bitmap{}, moved: map[uint64]uint64{}, left: map[uint64]bool{},
		entries: slices.DeleteFunc(slices.Clone(r.c.entries), func(e *catalogEntry) bool {
			return r.o.Memory.torn[keyOf(e)] || e.root != e.all[0]
		}),
	}
	g.out = gathered{s: r.s, dry: r.o.DryRun, most: r.s.limits.part(), ids: map[uint64]uint64{}}
	defer g.packs.release()
	defer g.out.abort()
	if g.packs.ids, err = sameIDs(r.c.entries); err != nil {
		return false, err
	}
	g.orphans = newOrphans(ctx, g)
	did, err = g.run(ctx)
	if err == nil && did {
		return true, nil
	}
	g.end(ctx, err)
	if err != nil {
		return false, fmt.Errorf("bring versions of pages together: %w", err)
	}
	r.o.Memory.gathered = true
	return false, nil
}

// run copies pages and lets roots refer to the copies; false if there are too few.
func (g *gatherer) run(ctx context.Context) (bool, error) {
	for _, l := range lineages(g.entries) {
		if err := g.lineage(ctx, l); err != nil {
			return false, err
		}
	}
	if err := g.look(ctx); err != nil {
		return false, err
	}
	if g.pairs < max(g.s.limits.gatherPages, 1) {
		return false, nil
	}
	if err := g.evacuate(ctx); err != nil {
		return false, err
	}
	report := &g.r.report
	if !g.out.dry {
		if err := g.finish(ctx); err != nil {
			return false, err
		}
	}
	report.GatheredPages += uint64(len(g.moved))
	report.Repacked++
	report.ColdPages += uint64(len(g.moved))
	report.BytesAfter += g.out.bytes
	return true, nil
}

// end decides what becomes of packs to which no root refers. Those of one who was told to end stay for the
// next, with what is in the one that is being filled.
func (g *gatherer) end(ctx context.Context, cause error) {
	told := cause != nil && (g.r.stopped || ctx.Err() != nil)
	switch {
	case g.named:
	case !told:
		g.out.undo(context.WithoutCancel(ctx))
	default:
		if err := g.out.keep(); err != nil {
			g.s.log.Warn("the copies that were made of pages are lost; they are made again", "err", err)
		}
	}
}

// lineage finds the families of one machine. So many checkpoints are looked at side by side as may have the
// packs open that their page maps lie in; the next ones begin with the last of these.
func (g *gatherer) lineage(ctx context.Context, l []*catalogEntry) error {
	most := max(g.packs.limit/packsOfMap, 2)
	for from := 0; from < len(l)-1 && !g.full; from += most - 1 {
		if err := g.window(ctx, l[from:min(from+most, len(l))]); err != nil {
			return err
		}
	}
	return nil
}

// packsOfMap is how many packs are read for a leaf of a page map: its branch, itself, and its base; and one
// more in which the page lies.
const packsOfMap = 4

// window finds the families of some checkpoints of a machine, which follow one another.
func (g *gatherer) window(ctx context.Context, l []*catalogEntry) error {
	w := versionWalk{nodes: g.packs, branch: make([]branch, len(l)), leaf: make([]leaf, len(l))}
	for _, e := range l {
		r, err := g.s.readRootBrief(ctx, e.Name, e.Generation)
		if g.s.gone(e) {
			return nil // another time
		}
		if err != nil {
			return fmt.Errorf("checkpoint %s: %w", e.Name, err)
		}
		w.tops = append(w.tops, r.top)
	}
	return w.each(func() error { return g.r.wait(ctx) }, func(versions []uint64) error {
		return g.family(ctx, versions)
	}, func() bool { return g.full })
}

// family takes the versions of a page that are to lie together, if they lie in different packs. Pages that
// are versions of several pages belong to the first.
func (g *gatherer) family(ctx context.Context, versions []uint64) error {
	from := len(g.refs)
	for _, ref := range versions {
		if !has(g.home, ref>>24, pack.Ref(ref).Slot()) {
			g.refs = append(g.refs, ref)
		}
	}
	if len(g.refs)-from < 2 {
		g.refs = g.refs[:from]
		return nil
	}
	var cold []uint64
	for _, ref := range g.refs[from:] {
		mark(g.home, ref)
		is, err := g.cold(ref)
		if err != nil {
			return err
		}
		if is {
			cold = append(cold, ref)
		}
	}
	g.refs = append(g.refs[:from], withoutFull(cold)...)
	f := family{from, len(g.refs)}
	if g.apart(f) == 0 {
		g.refs = g.refs[:from]
		return nil
	}
	if done, err := g.adopt(ctx, f); done || err != nil {
		g.refs = g.refs[:from]
		return err
	}
	g.families = append(g.families, f)
	if len(g.refs) < lookPages {
		return nil
	}
	return g.look(ctx)
}

// withoutFull leaves out versions of which as many as may be lie in one pack already.
func withoutFull(refs []uint64) []uint64 {
	in := map[uint64]int{}
	for _, ref := range refs {
		in[ref>>24]++
	}
	return slices.DeleteFunc(refs, func(ref uint64) bool { return in[ref>>24] >= maxVersions })
}

// move copies a family. A page that is stored twice is copied once.
func (g *gatherer) move(ctx context.Context, f family) (err error) {
	for i := f.from; i < f.to; i++ {
		same := slices.Index(g.hashes[f.from:i], g.hashes[i])
		if same >= 0 {
			g.moved[g.refs[i]] = g.moved[g.refs[f.from+same]]
			continue
		}
		if g.moved[g.refs[i]], err = g.out.add(ctx, g.page(i), g.hashes[i]); err != nil {
			return err
		}
	}
	g.pairs += g.apart(f)
	return nil
}

// apart is how many versions of a family do not lie in the pack that has most of them.
func (g *gatherer) apart(f family) int {
	most, in := 0, map[uint64]int{}
	for _, ref := range g.refs[f.from:f.to] {
		in[ref>>24]++
		most = max(most, in[ref>>24])
	}
	return f.to - f.from - most
}

// cold says whether a page is to lie in a cluster.
func (g *gatherer) cold(ref uint64) (bool, error) {
	number := ref >> 24
	if _, ok := g.used[number]; !ok {
		p, err := g.packs.get(number)
		if err != nil && !isDamage(err) {
			return false, err
		}
		g.used[number] = g.r.usedSlots(p, number)
	}
	used := g.used[number]
	return used != nil && !used.has(pack.Ref(ref).Slot()), nil
}

// usedSlots are the slots of a pack that clusters should not have. Nil if the pack cannot be opened.
func (r *repacker) usedSlots(p *pack.Reader, number uint64) *bitmap {
	if p == nil {
		return nil
	}
	used := new(bitmap)
	live := r.c.live.packs[number]
	for b := range p.Blocks() {
		first, count := p.BlockSlots(b)
		near := r.near(live, number, first, count)
		for slot := first; slot < first+count; slot++ {
			if near || has(r.o.Memory.tiers.seen, number, slot) || p.Dead(slot) || p.StoredBytes(slot) >= PageSize {
				used.add(slot)
			}
		}
	}
	return used
}

// look reads the pages of the families that were found, and puts those into the new pack that are like their
// other versions.
func (g *gatherer) look(ctx context.Context) error {
	defer func() { g.refs, g.families = g.refs[:0], g.families[:0] }()
	if len(g.refs) == 0 || g.full {
		return nil
	}
	if err := g.read(ctx); err != nil {
		return err
	}
	for _, f := range g.families {
		if slices.Contains(g.bad[f.from:f.to], true) || !g.alike(f) {
			continue
		}
		if len(g.moved)+f.to-f.from > int(g.s.limits.packPages) {
			g.full = true // the rest another time
			break
		}
		if err := g.out.room(ctx, g, f.to-f.from); err != nil {
			return err
		}
		if err := g.move(ctx, f); err != nil {
			return err
		}
	}
	return g.out.flush()
}

// alike says whether a version of a page is like the next one, which lies in another pack.
func (g *gatherer) alike(f family) bool {
	for i := f.from + 1; i < f.to; i++ {
		if g.refs[i]>>24 != g.refs[i-1]>>24 && pack.Alike(g.page(i-1), g.page(i)) {
			return true
		}
	}
	return false
}
