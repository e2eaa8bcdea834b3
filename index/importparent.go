package index

import (
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

// findParent chooses a parent among the newest checkpoints with as much memory: the one that has
// the most pages of a sample at the same places. Nil if none has any.
func (s *Store) findParent(ctx context.Context, im *importer, hashes *hashCache) (
	*parentImage, error,
) {
	candidates := s.candidates(int64(im.mem.pages) * PageSize)
	if len(candidates) == 0 {
		return nil, nil
	}
	gfns, sums, err := im.sample()
	if err != nil || len(gfns) == 0 {
		return nil, err
	}
	var best *parentImage
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
		n := 0
		for i, gfn := range gfns {
			if ref := p.pages.ref(gfn); ref != 0 && hashes.is(ref, sums[i]) {
				n++
			}
		}
		if n <= most {
			p.close()
			continue
		}
		if best != nil {
			best.close()
		}
		best, most = p, n
		if most*2 > len(gfns) {
			break
		}
	}
	return best, nil
}

// candidates returns the names of the newest checkpoints with so much memory, the newest first.
func (s *Store) candidates(bytes int64) (names []string) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	var list []*catalogEntry
	for _, e := range s.cat.m {
		if e.err == nil && e.MemoryBytes == bytes {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *catalogEntry) int { return b.Created.Compare(a.Created) })
	for _, e := range list[:min(len(list), maxCandidates)] {
		names = append(names, e.Name)
	}
	return names
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
