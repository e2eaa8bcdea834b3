package index

import (
	"context"
	"errors"
	"fmt"
)

// Version tells a checkpoint from every other one that had or will have its name.
type Version struct {
	Name, ID string
	// Generation counts the changes, also those of the working set: memory and the other files depend on
	// the ID alone.
	Generation uint32
}

// Version is what tells the checkpoint from others of its name.
func (c *Checkpoint) Version() Version { return Version{c.Name, c.ID, c.Generation} }

// use counts an open image or file of a checkpoint, so that Remove refuses, and returns its entry.
// The caller ends the use with unuse.
func (s *Store) use(name string) (*catalogEntry, error) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	e, err := s.cat.get(name)
	if err != nil {
		return nil, err
	}
	*e.open++
	return e, nil
}

func (s *Store) unuse(e *catalogEntry) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	*e.open--
}

// useRoot counts an opening of a checkpoint, reads its root, and lets open take what it needs. After
// an error nothing is counted. An ID in v must be the checkpoint's.
//
// A writer, in this process or another one, may remove root or packs between the steps. If something
// changed meanwhile, the steps are repeated, a limited number of times.
func (s *Store) useRoot(ctx context.Context, v Version, open func(*catalogEntry, *root) error) error {
	for try := 1; ; try++ {
		seen := s.changes.Load()
		err := s.tryRoot(ctx, v, open)
		if err == nil || !mayBeStale(err) {
			return err
		}
		if rerr := s.Refresh(ctx); rerr != nil {
			return errors.Join(err, rerr)
		}
		if s.changes.Load() == seen {
			return err
		}
		if try == useTries {
			return fmt.Errorf("it is being replaced again and again; try later: %w", err)
		}
	}
}

// useTries bounds how often an opening is tried.
const useTries = 5

// mayBeStale says whether an out-of-date catalog may be the cause of err.
func mayBeStale(err error) bool {
	return isCorrupt(err) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrChanged)
}

func (s *Store) tryRoot(ctx context.Context, v Version, open func(*catalogEntry, *root) error) error {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if err := s.enter(ctx); err != nil {
		return err
	}
	e, err := s.use(v.Name)
	if err != nil {
		return err
	}
	r, err := s.rootOf(ctx, e)
	switch {
	case err != nil:
	case v.ID != "" && r.ID != v.ID:
		err = ErrChanged
	case r.ID != e.ID:
		err = fmt.Errorf("%w: its root is that of another checkpoint", ErrChanged)
	default:
		err = open(e, r)
	}
	if err != nil {
		s.unuse(e)
	}
	return err
}

// cachedRoots is how many roots a store on a high-latency medium keeps: a restore needs that of its
// checkpoint for each file.
const cachedRoots = 8

// rootOf reads the root of a checkpoint that is in use.
func (s *Store) rootOf(ctx context.Context, e *catalogEntry) (*root, error) {
	if s.roots == nil {
		return s.readRoot(ctx, e.Name, e.Generation)
	}
	if r, ok := s.roots.Get(e); ok {
		return r, nil
	}
	r, err := s.readRoot(ctx, e.Name, e.Generation)
	if err == nil {
		s.roots.Add(e, r)
	}
	return r, err
}

// useSettled is useRoot. At first all packs must be there: a missing one may have been replaced by a
// writer. If it stays missing it is lost, and open is called once more and does without it.
func (s *Store) useSettled(ctx context.Context, v Version,
	open func(e *catalogEntry, r *root, without bool) error) error {
	var err error
	for _, without := range []bool{false, true} {
		err = s.useRoot(ctx, v, func(e *catalogEntry, r *root) error { return open(e, r, without) })
		if !isGone(err) {
			break
		}
	}
	return err
}
