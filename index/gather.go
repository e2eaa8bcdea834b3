package index

import (
	"cmp"
	"context"
	"errors"
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
type gatherer struct {
	r     *repacker
	s     *Store
	packs *lazyPacks
	home  map[uint64]*bitmap // pages whose family was found
	used  map[uint64]*bitmap // of each pack: pages that stay where they are
	wait  func(context.Context) error
	// entries get new generations. A checkpoint whose root itself is damaged, or a newer one than that which
	// counts, goes on referring to what was copied.
	entries []*catalogEntry

	refs     []uint64 // of the families that are looked at next
	families []family
	pages    []byte
	hashes   []pack.Hash
	bad      []bool // pages that cannot be read

	out   gathered
	moved map[uint64]uint64 // refs of pages: what they become
	left  map[uint64]bool   // packs of which nothing is needed then
	pairs int               // pages that come to a version of theirs in another pack
	full  bool              // the new pack is
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
)

// gather fills one pack with versions of pages that belong together; false if there are too few of them.
func (r *repacker) gather(ctx context.Context) (did bool, err error) {
	if len(r.o.Names) > 0 || r.o.Memory.gathered {
		return false, nil
	}
	g := &gatherer{
		r: r, s: r.s, packs: newLazyPacks(ctx, r.s.packs), wait: r.wait,
		home: map[uint64]*bitmap{}, used: map[uint64]*bitmap{}, moved: map[uint64]uint64{}, left: map[uint64]bool{},
		out: gathered{s: r.s, dry: r.o.DryRun},
		entries: slices.DeleteFunc(slices.Clone(r.c.entries), func(e *catalogEntry) bool {
			return r.o.Memory.torn[keyOf(e)] || e.root != e.all[0]
		}),
	}
	defer g.packs.release()
	defer g.out.abort()
	if g.packs.ids, err = sameIDs(r.c.entries); err != nil {
		return false, err
	}
	for _, l := range lineages(g.entries) {
		if err := g.lineage(ctx, l); err != nil {
			return false, fmt.Errorf("bring versions of pages together: %w", err)
		}
	}
	if err := g.look(ctx); err != nil {
		return false, fmt.Errorf("bring versions of pages together: %w", err)
	}
	if g.pairs < max(r.s.limits.gatherPages, 1) {
		r.o.Memory.gathered = true
		return false, nil
	}
	if err := g.evacuate(ctx); err != nil {
		return false, fmt.Errorf("bring versions of pages together: %w", err)
	}
	if !r.o.DryRun {
		if err := g.finish(ctx); err != nil {
			return false, fmt.Errorf("bring versions of pages together: %w", err)
		}
	}
	r.report.GatheredPages += uint64(len(g.moved))
	r.report.Repacked++
	r.report.ColdPages += uint64(len(g.moved))
	r.report.BytesAfter += g.out.bytes
	return true, nil
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

// lineages are the checkpoints of each machine of which there are several, as far as that is known, in the
// order in which they were made.
func lineages(entries []*catalogEntry) (all [][]*catalogEntry) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b *catalogEntry) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	of := map[*catalogEntry]int{} // position in all
	for i, e := range entries {
		from := formerOf(e, entries[:i])
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

// formerOf returns the checkpoint that the import of e took for its parent, or else the last one that has a
// pack in common with e; nil if there is none with as much memory.
func formerOf(e *catalogEntry, earlier []*catalogEntry) (former *catalogEntry) {
	for _, x := range slices.Backward(earlier) {
		if x.MemoryBytes != e.MemoryBytes {
			continue
		}
		if x.Name == e.Parent {
			return x
		}
		if former == nil && slices.ContainsFunc(x.packs, func(n uint64) bool {
			_, ok := searchUint64(e.packs, n)
			return ok
		}) {
			former = x
		}
	}
	return former
}

// lineage finds the families of one machine.
func (g *gatherer) lineage(ctx context.Context, l []*catalogEntry) error {
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
	return w.each(func() error { return g.wait(ctx) }, func(versions []uint64) error {
		return g.family(ctx, versions)
	}, func() bool { return g.full })
}

// family takes the versions of a page that are to lie together, if they lie in different packs. Pages that
// are versions of several pages belong to the first.
func (g *gatherer) family(ctx context.Context, versions []uint64) error {
	f := family{from: len(g.refs), to: len(g.refs)}
	for _, ref := range versions {
		if !noted(g.home, ref) {
			continue
		}
		cold, err := g.cold(ref)
		if err != nil {
			return err
		}
		if cold {
			g.refs = append(g.refs, ref)
		}
	}
	g.refs = append(g.refs[:f.from], withoutFull(g.refs[f.from:])...)
	f.to = len(g.refs)
	if f.to-f.from-g.most(f) == 0 {
		g.refs = g.refs[:f.from]
		return nil
	}
	g.families = append(g.families, f)
	if len(g.refs) < lookPages {
		return nil
	}
	return g.look(ctx)
}

// noted puts a page into one of the maps, and says whether it was not there.
func noted(in map[uint64]*bitmap, ref uint64) bool {
	b := in[ref>>24]
	if b == nil {
		b = new(bitmap)
		in[ref>>24] = b
	}
	return b.add(pack.Ref(ref).Slot())
}

// withoutFull leaves out versions of which as many as may be lie in one pack already.
func withoutFull(refs []uint64) []uint64 {
	in := map[uint64]int{}
	for _, ref := range refs {
		in[ref>>24]++
	}
	return slices.DeleteFunc(refs, func(ref uint64) bool { return in[ref>>24] >= maxVersions })
}

// most is how many versions of a family lie in one pack at most.
func (g *gatherer) most(f family) (most int) {
	for _, ref := range g.refs[f.from:f.to] {
		n := 0
		for _, x := range g.refs[f.from:f.to] {
			if x>>24 == ref>>24 {
				n++
			}
		}
		most = max(most, n)
	}
	return most
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
		for i := f.from; i < f.to; i++ {
			ref, err := g.out.add(ctx, g.page(i), g.hashes[i])
			if err != nil {
				return err
			}
			g.moved[g.refs[i]] = ref
		}
		g.pairs += f.to - f.from - g.most(f)
	}
	return g.out.flush()
}

func (g *gatherer) page(i int) []byte { return g.pages[i*PageSize:][:PageSize] }

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

// alike says whether a version of a page is like the next one, which lies in another pack.
func (g *gatherer) alike(f family) bool {
	for i := f.from + 1; i < f.to; i++ {
		if g.refs[i]>>24 != g.refs[i-1]>>24 && pack.Alike(g.page(i-1), g.page(i)) {
			return true
		}
	}
	return false
}

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
		if err := g.wait(ctx); err != nil {
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
