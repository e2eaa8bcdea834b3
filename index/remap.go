package index

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// remapped is the page map of a checkpoint that refers to the new pack.
type remapped struct {
	entry    *catalogEntry
	branches []uint64
	packs    map[uint64]bool // that it refers to
}

// finish writes the page maps, then the pack, and then the roots.
func (g *gatherer) finish(ctx context.Context) (err error) {
	from := map[uint64]bool{}
	for ref := range g.moved {
		from[ref>>24] = true
	}
	var maps []*remapped
	for _, e := range g.entries {
		if err := g.r.wait(ctx); err != nil {
			return err
		}
		m, err := g.remap(ctx, e, from)
		if g.s.gone(e) {
			continue
		}
		if err != nil {
			return fmt.Errorf("checkpoint %s: %w", e.Name, err)
		}
		if m != nil {
			maps = append(maps, m)
		}
	}
	if err := g.out.commit(ctx, g); err != nil {
		return err
	}
	for _, m := range maps {
		if err := g.r.wait(ctx); err != nil {
			return err
		}
		err := g.replace(ctx, m)
		if err != nil && g.s.gone(m.entry) && !errors.Is(err, errUnsure) {
			continue
		}
		if err != nil {
			g.named = g.named || errors.Is(err, errUnsure)
			return fmt.Errorf("checkpoint %s: %w", m.entry.Name, err)
		}
		g.named = true
	}
	for number := range from {
		g.r.o.Memory.copied[number] = true
	}
	g.packs.release()
	return g.r.dropUnlisted(ctx, g.r.c.listed)
}

// remap writes the nodes of a checkpoint whose pages are referred to in the new pack; nil if it has none of
// these.
func (g *gatherer) remap(ctx context.Context, e *catalogEntry, from map[uint64]bool) (*remapped, error) {
	concerned := false
	for _, n := range e.packs {
		concerned = concerned || from[n]
	}
	if !concerned {
		return nil, nil
	}
	r, err := g.s.readRootBrief(ctx, e.Name, e.Generation)
	if err != nil {
		return nil, err
	}
	hasher := pack.NewHasher(g.s.key)
	old := map[pack.Hash]uint64{}
	find := func(h pack.Hash) (uint64, error) { return max(g.out.nodes[h], old[h]), nil }
	tree := newTreeWriter(r.top.pages, hasher, find, &parentTree{
		nodes: g.packs, branches: r.top.branches, leave: g.left,
	})
	var b branch
	var refs leaf
	changed := slices.ContainsFunc(r.top.packs, func(n uint64) bool { return g.left[n] })
	for i, ref := range r.top.branches {
		if ref == 0 {
			continue
		}
		code, err := g.packs.node(ref, kindBranch)
		if err != nil {
			return nil, err
		}
		if hash, ok := nodeHash(hasher, kindBranch, code); ok && !g.left[ref>>24] {
			old[hash] = ref // a branch that stays as it is
		}
		if err := readBranch(g.packs, ref, &b); err != nil {
			return nil, err
		}
		for j, c := range &b {
			if c.zero() {
				continue
			}
			if _, err := readLeaf(g.packs, c, &refs); err != nil {
				return nil, err
			}
			for p, ref := range refs {
				if now, ok := g.moved[ref]; ok {
					refs[p], changed = now, true
				}
			}
			if err := tree.add(uint64(i)*branchLeaves+uint64(j), &refs); err != nil {
				return nil, err
			}
		}
	}
	if !changed {
		return nil, nil
	}
	branches, err := tree.finish(func(kind uint32, code []byte) (uint64, error) {
		return g.out.record(ctx, kind, code)
	})
	return &remapped{entry: e, branches: branches, packs: tree.packs}, err
}

// replace gives a checkpoint the next generation of its root, if its page map has the same pages.
func (g *gatherer) replace(ctx context.Context, m *remapped) error {
	r, err := g.s.readRoot(ctx, m.entry.Name, m.entry.Generation)
	if err == nil {
		err = r.whole()
	}
	if err != nil {
		return err
	}
	packs := maps.Clone(m.packs)
	for _, parts := range r.FileParts {
		for _, ref := range parts.Parts {
			if ref>>24 != rootNumber {
				packs[ref>>24] = true
			}
		}
	}
	if r.top.segment != 0 {
		packs[r.top.segment] = true
	}
	top := &mapTop{
		pages: r.top.pages, branches: m.branches, packs: sortedKeys(packs), segment: r.top.segment,
		ids: maps.Clone(g.out.ids),
	}
	for _, n := range top.packs {
		if id := r.top.ids[n]; id != 0 {
			top.ids[n] = id
		}
	}
	if err := g.samePages(ctx, r.top, top); err != nil {
		return err
	}
	next := &root{manifest: r.manifest, top: top, setRuns: r.setRuns, dues: r.dues, records: r.records}
	if next.SetGeneration == nil {
		next.SetGeneration = &r.Generation
	}
	_, err = g.s.commit(ctx, next, m.entry)
	return err
}

// samePages says whether two page maps mean the same pages: the same ref, or one of a page with the same
// hash. It reads both as they are stored, and knows nothing of what was moved.
func (g *gatherer) samePages(ctx context.Context, was, is *mapTop) error {
	packs := newLazyPacks(ctx, g.s.packs) // the new pack, too
	defer packs.release()
	packs.ids = maps.Clone(g.packs.ids)
	maps.Copy(packs.ids, g.out.ids)
	hashes := newRawHashes(packs)
	before := branchLoader{nodes: packs, packs: was.packs}
	after := branchLoader{nodes: packs, packs: is.packs}
	for i := range was.branches {
		b, err := before.number(ctx, was, i)
		if err != nil {
			return err
		}
		a, err := after.number(ctx, is, i)
		if err != nil {
			return err
		}
		x := &pageMap{pages: was.pages, packs: was.packs, branches: make([]*branchMap, i+1)}
		y := &pageMap{pages: is.pages, packs: is.packs, branches: make([]*branchMap, i+1)}
		x.branches[i], y.branches[i] = b, a
		end := min(was.pages, uint64(i+1)*branchPages)
		for gfn := uint64(i) * branchPages; gfn < end; gfn++ {
			if err := samePage(hashes, x.ref(gfn), y.ref(gfn)); err != nil {
				return fmt.Errorf("page %d: %w", gfn, err)
			}
		}
	}
	return nil
}

var errOtherPages = errors.New("the page map that was made refers to another page: report this")

func samePage(hashes *rawHashes, was, is uint64) error {
	if was == is {
		return nil
	}
	if was == 0 || is == 0 {
		return errOtherPages
	}
	a, err := hashes.of(was)
	if err != nil {
		return err
	}
	b, err := hashes.of(is)
	if err == nil && a != b {
		err = errOtherPages
	}
	return err
}
