package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/thawfs/thaw/index/pack"
)

// formatIDs returns the identities of packs as 16 hexadecimal digits each, in the order of the packs; an
// empty string for one that is not known. Nil if none is.
func formatIDs(packs []uint64, ids map[uint64]uint64) []string {
	out := make([]string, len(packs))
	known := false
	for i, n := range packs {
		if id := ids[n]; id != 0 {
			out[i], known = fmt.Sprintf("%016x", id), true
		}
	}
	if !known {
		return nil
	}
	return out
}

// parseIDs is the inverse of formatIDs.
func parseIDs(packs []uint64, list []string) (map[uint64]uint64, error) {
	ids := map[uint64]uint64{}
	if len(list) != 0 && len(list) != len(packs) {
		return nil, fmt.Errorf("%d identities of %d packs", len(list), len(packs))
	}
	for i, s := range list {
		if s == "" {
			continue
		}
		id, err := strconv.ParseUint(s, 16, 64)
		if err != nil || id == 0 || len(s) != 16 {
			return nil, fmt.Errorf("identity of pack %d: %q", packs[i], s)
		}
		ids[packs[i]] = id
	}
	return ids, nil
}

// allIDs returns the identities that checkpoints have for packs: one of each, if nothing is wrong.
func allIDs(entries map[string]*catalogEntry) map[uint64][]uint64 {
	all := map[uint64][]uint64{}
	for _, e := range entries {
		for n, id := range e.ids {
			if !slices.Contains(all[n], id) {
				all[n] = append(all[n], id)
			}
		}
	}
	return all
}

// ids returns the identities that packs must have for an import to refer to them. Where checkpoints do
// not agree it is that of any of them.
func (c *catalog) ids() map[uint64]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := map[uint64]uint64{}
	for n, all := range allIDs(c.m) {
		ids[n] = all[0]
	}
	return ids
}

// hasID fails with a *CorruptError if a pack has another identity than id. 0 means that it is not known.
func hasID(r *pack.Reader, id uint64) error {
	if id == 0 || r.ID() == id {
		return nil
	}
	return otherPack(r.Name(), r.ID(), id)
}

func otherPack(name string, got, want uint64) error {
	return &CorruptError{Pack: name, What: "identity", Err: fmt.Errorf(
		"%w: it has the identity %016x, and %016x is meant; put the right pack back from a copy of this store",
		ErrOtherPack, got, want)}
}

// settleID notes the identity of an entry that is opened first. A writer insists on it later: what it
// refers to must not become another pack meanwhile. A reader does not, so that the right pack can be put
// back while it serves; it compares with what a root has. e.mu must be held.
func (s *packSet) settleID(e *packEntry, r *pack.Reader) error {
	id := r.ID()
	if e.id == nil || s.refresh != nil {
		e.id = &id
	}
	if *e.id != id { // also where one of both has none
		return otherPack(r.Name(), id, *e.id)
	}
	return nil
}

// id returns the identity of a pack, which it opens if nobody did before.
func (s *packSet) id(ctx context.Context, number uint64) (uint64, error) {
	s.mu.Lock()
	e := s.m[number]
	s.mu.Unlock()
	if e != nil {
		e.mu.Lock()
		id := e.id
		e.mu.Unlock()
		if id != nil {
			return *id, nil
		}
	}
	e, err := s.pin(ctx, number, 0)
	if err != nil {
		return 0, err
	}
	defer s.unpin(e)
	e.mu.Lock()
	defer e.mu.Unlock()
	return *e.id, nil
}

// ids returns the identities of packs, for a new root.
func (s *packSet) ids(ctx context.Context, numbers []uint64) (map[uint64]uint64, error) {
	ids := make(map[uint64]uint64, len(numbers))
	for _, n := range numbers {
		id, err := s.id(ctx, n)
		if err != nil {
			return nil, err
		}
		ids[n] = id
	}
	return ids, nil
}

// noneForeign fails if a pack is not the one that a root means. It passes over packs that are missing or
// damaged.
func (s *packSet) noneForeign(ctx context.Context, top *mapTop) error {
	for _, n := range top.packs {
		want := top.ids[n]
		if want == 0 {
			continue
		}
		id, err := s.id(ctx, n)
		switch {
		case err == nil && id != want:
			info, _ := s.info(n)
			return otherPack(pack.Name(n, info.generation), id, want)
		case err != nil && (errors.Is(err, ErrOtherPack) || !isDamage(err)):
			return err
		}
	}
	return nil
}
