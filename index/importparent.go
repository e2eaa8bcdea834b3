package index

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// parentImage is the checkpoint that a new one is likely to be like: an earlier one of the same
// machine. Its page map says where to look for a page first, and is shared where it did not change.
// The choice affects time and space only.
type parentImage struct {
	name  string
	pins  *pins
	pages *pageMap
	tree  *parentTree
}

func (p *parentImage) close() { p.pins.release() }

const (
	maxCandidates = 8
	samplePages   = 64
)

// findParent chooses a parent among the checkpoints with as much memory that are most likely to have
// pages of a sample: the one that has the most at the same places. Nil if none has any.
func (s *Store) findParent(ctx context.Context, im *importer, hashes *hashCache) (
	*parentImage, error,
) {
	list := s.alike(int64(im.mem.pages) * PageSize)
	if len(list) == 0 {
		return nil, nil
	}
	gfns, sums, err := im.sample()
	if err != nil || len(gfns) == 0 {
		return nil, err
	}
	candidates, err := s.candidates(ctx, list, sums)
	if err != nil {
		return nil, err
	}
	return s.mostAlike(ctx, candidates, len(gfns), func(p *pageMap, i int) bool {
		ref := p.ref(gfns[i])
		return ref != 0 && hashes.is(ref, sums[i])
	})
}

// mostAlike chooses a parent among candidates: the one that has the most pages of a sample of n at the same
// places. Nil if none has any.
func (s *Store) mostAlike(ctx context.Context, candidates []string, n int, has func(p *pageMap, i int) bool) (
	best *parentImage, err error,
) {
	most := 0
	for _, name := range candidates {
		p, err := s.openParent(ctx, name)
		if isCorrupt(err) || errors.Is(err, ErrNotFound) || isManyFiles(err) {
			s.log.Info("the checkpoint cannot be the parent of the import", "checkpoint", name, "err", err)
			continue
		}
		if err != nil {
			if best != nil {
				best.close()
			}
			return nil, err
		}
		alike := 0
		for i := range n {
			if has(p.pages, i) {
				alike++
			}
		}
		if alike <= most {
			p.close()
			continue
		}
		if best != nil {
			best.close()
		}
		best, most = p, alike
		if most*2 > n {
			break
		}
	}
	return best, nil
}

// alike returns the checkpoints with so much memory, the newest first.
func (s *Store) alike(bytes int64) (list []*catalogEntry) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	for _, e := range s.cat.m {
		if e.err == nil && e.MemoryBytes == bytes {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *catalogEntry) int { return b.Created.Compare(a.Created) })
	return list
}

// candidates returns the names of those of a list, the newest first, that are to be looked at, in which
// order. In a store of many machines the newest checkpoints are of other ones. Those of the same machine
// list packs that no other one has; so what counts is how many pages of the sample lie in packs that a
// checkpoint lists, as far as the index knows the pages.
func (s *Store) candidates(ctx context.Context, list []*catalogEntry, sums []pack.Hash) (
	names []string, err error,
) {
	if len(list) > 1 {
		refs := make([]uint64, len(sums))
		if err := s.hints.pages(ctx, sums, refs); err != nil {
			return nil, err
		}
		rankByPacks(list, refs)
	}
	return firstNames(list), nil
}

// firstNames are the names of so many candidates as are looked at.
func firstNames(list []*catalogEntry) (names []string) {
	for _, e := range list[:min(len(list), maxCandidates)] {
		names = append(names, e.Name)
	}
	return names
}

// rankByPacks sorts checkpoints, the newest first, by how many of the refs lie in packs that they list. Of
// those that have as many as the best, some of the newest come first, then those that list the fewest packs:
// all that the first machines of a fleet have is in packs that all others list as well, and more.
func rankByPacks(list []*catalogEntry, refs []uint64) {
	in := map[uint64]int{}
	for _, ref := range refs {
		if ref != 0 {
			in[ref>>24]++
		}
	}
	score := make(map[*catalogEntry]int, len(list))
	for _, e := range list {
		for number, n := range in {
			if _, ok := searchUint64(e.packs, number); ok {
				score[e] += n
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *catalogEntry) int { return cmp.Compare(score[b], score[a]) })
	best := 0
	for best < len(list) && score[list[best]] == score[list[0]] {
		best++
	}
	if best > maxCandidates/2 {
		slices.SortStableFunc(list[maxCandidates/2:best], func(a, b *catalogEntry) int {
			return cmp.Compare(len(a.packs), len(b.packs))
		})
	}
}

// sample returns some pages that are not zero, spread over the image, and their hashes.
func (im *importer) sample() (gfns []uint64, sums []pack.Hash, err error) {
	total := countPages(im.extents)
	h := pack.NewHasher(im.s.key)
	page := make([]byte, PageSize)
	step := max(total/(4*samplePages), 1)
	at := uint64(0) // the next sample, counted in pages of extents
	before := uint64(0)
	for _, r := range im.extents {
		for ; at < before+r.Count && len(gfns) < samplePages; at += step {
			gfn := r.GFN + at - before
			if err := im.mem.read([]uint64{gfn}, page); err != nil {
				return nil, nil, err
			}
			if !isZero(page) {
				gfns = append(gfns, gfn)
				sums = append(sums, h.Sum(page))
			}
		}
		before += r.Count
	}
	return gfns, sums, nil
}

func (s *Store) openParent(ctx context.Context, name string) (*parentImage, error) {
	e, err := s.use(name)
	if err != nil {
		return nil, err
	}
	// From here on pins are enough: nobody else removes packs while this process writes.
	defer s.unuse(e)
	r, err := s.readRoot(ctx, name, e.Generation)
	if err != nil {
		return nil, err
	}
	pins, err := s.packs.pinReadable(ctx, r.top.packs, r.top.ids, false)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(pins.errs...); err != nil {
		pins.release()
		return nil, err
	}
	n := newPinnedNodes(r.top.packs, pins)
	m, err := loadPageMap(ctx, n, r.top, r.top.packs, nil)
	if err != nil {
		pins.release()
		return nil, err
	}
	return &parentImage{
		name: name, pins: pins, pages: m,
		tree: &parentTree{nodes: n, branches: r.top.branches},
	}, nil
}
