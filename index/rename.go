package index

import (
	"context"
	"fmt"
)

// Rename gives a checkpoint another name, which must be free. Its ID, memory, files and working set stay.
// ErrInUse while an image or a file of it is open in this process.
//
// The root is written under the new name before the one under the old name goes. After a crash in between
// the checkpoint has both names, each can be removed, and Rename done again removes the old one.
func (s *Store) Rename(ctx context.Context, from, to string) (Checkpoint, error) {
	c, err := s.rename(ctx, from, to)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	return c, nil
}

func (s *Store) rename(ctx context.Context, from, to string) (c Checkpoint, err error) {
	for _, name := range []string{from, to} {
		if err := CheckName(name); err != nil {
			return c, err
		}
	}
	done, err := s.write(ctx)
	if err != nil {
		return c, err
	}
	defer done()
	old, e := s.entry(from), s.entry(to)
	switch {
	case old == nil:
		return c, fmt.Errorf("checkpoint %s: %w", from, ErrNotFound)
	case from == to || e != nil && !e.renamed(old):
		return c, fmt.Errorf("checkpoint %s: %w", to, ErrExists)
	}
	if err := s.removable(old); err != nil {
		return c, err
	}
	r, err := s.readRoot(ctx, from, old.Generation)
	if err == nil {
		err = r.whole()
	}
	if err != nil {
		return c, err
	}
	if e == nil {
		// The generations go on: the name may have had the checkpoint before, with another working set.
		r.Name, r.Generation, r.SetGeneration = to, old.all[0].generation+1, nil
		if e, err = s.commit(ctx, r, nil); err != nil {
			return c, err
		}
	}
	if err := s.Remove(ctx, from); err != nil {
		return c, fmt.Errorf("it is called %s now, and %s still: %w", to, from, err)
	}
	return e.Checkpoint, nil
}

// renamed says whether an entry is what renaming old was interrupted at.
func (e *catalogEntry) renamed(old *catalogEntry) bool {
	return e.err == nil && e.ID != "" && e.ID == old.ID && e.segment == old.segment
}

// removable says why an entry cannot be removed or replaced: ErrInUse, or a root with a name that the store
// would not give it.
func (s *Store) removable(e *catalogEntry) error {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	return e.removableLocked()
}

func (e *catalogEntry) removableLocked() error {
	if *e.open > 0 {
		return ErrInUse
	}
	for _, info := range e.all {
		if info.odd {
			return oddRoot(e.Name, info)
		}
	}
	return nil
}
