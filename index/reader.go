package index

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index/blob"
)

// A reader is a store that was opened with OpenOptions.ReadOnly. Writers may change the store
// meanwhile: blobs are written once, so what the reader has open stays the same, and when a blob is
// gone the reader lists the blobs again.

// readTries bounds how often a reader lists anew because roots were gone when it came to read them.
const readTries = 5

// Refresh makes a reader see what was written since: it lists the blobs anew and reads the roots that
// it does not know. Images and files that are open keep what they opened. It does nothing for a
// store that is open for writing, since nobody else writes to that.
func (s *Store) Refresh(ctx context.Context) error {
	if err := s.enter(ctx); err != nil || !s.readOnly {
		return err
	}
	select {
	case s.refreshing <- struct{}{}:
		defer func() { <-s.refreshing }()
	case <-s.closing:
		return s.enter(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.refresh(ctx); err != nil {
		return fmt.Errorf("refresh store %s: %w", s.dir, err)
	}
	return nil
}

// refresh is Refresh under its lock.
func (s *Store) refresh(ctx context.Context) error {
	for try := 1; ; try++ {
		l, err := s.listSettled(ctx, s.listed)
		if err != nil {
			return err
		}
		entries, missing, err := s.newEntries(ctx, l)
		if err != nil {
			return err
		}
		if missing > 0 && try < readTries {
			continue // they were replaced or removed between the listing and the reading
		}
		packs, err := s.choosePacks(ctx, l, entries)
		if err != nil {
			return err
		}
		s.packs.follow(packs)
		s.cat.mu.Lock()
		s.cat.m = entries
		s.cat.mu.Unlock()
		if s.listed == nil || !l.equal(s.listed) {
			s.listed = l
			s.changes.Add(1)
		}
		return nil
	}
}

// newEntries returns the catalog of a listing. Roots that are known are not read again;
// missing is how many were gone when they were read.
func (s *Store) newEntries(ctx context.Context, l *listing) (
	entries map[string]*catalogEntry, missing int, err error,
) {
	known := map[string]*catalogEntry{}
	unknown := map[string][]rootInfo{}
	s.cat.mu.Lock()
	for name, all := range l.roots {
		if e := s.cat.m[name]; e != nil && e.err == nil && e.root.tag != "" && slices.Equal(e.all, all) {
			known[name] = e
		} else {
			unknown[name] = all
		}
	}
	s.cat.mu.Unlock()
	entries, err = s.readRoots(ctx, unknown)
	if err != nil {
		return nil, 0, err
	}
	missing = len(unknown) - len(entries)
	s.cat.mu.Lock()
	for name, e := range entries {
		if was := s.cat.m[name]; was != nil && was.err != nil && e.err != nil && slices.Equal(was.all, e.all) {
			entries[name] = was // as damaged as it was: nobody is to take it for another one
		}
	}
	s.cat.mu.Unlock()
	for name, e := range known {
		entries[name] = e
	}
	return entries, missing, nil
}

// choosePacks returns the generation to use of each pack, for the checkpoints that there are.
func (s *Store) choosePacks(ctx context.Context, l *listing, entries map[string]*catalogEntry) (
	map[uint64]packInfo, error,
) {
	var ids map[uint64][]uint64 // made if there is anything to choose
	packs := make(map[uint64]packInfo, len(l.packs))
	for n, all := range l.packs {
		if ids == nil && len(all) > 1 {
			ids = allIDs(entries)
		}
		info, err := s.choosePack(ctx, n, all, ids[n])
		if err != nil {
			return nil, err
		}
		info.top = all[0].generation
		packs[n] = info
	}
	return packs, nil
}

// isGone says whether err is of a blob that is not there (any more).
func isGone(err error) bool {
	return errors.Is(err, blob.ErrNotFound) || errors.Is(err, errPackMissing)
}
