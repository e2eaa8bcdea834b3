package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/thawfs/thaw/index/blob"
)

// catalog is the checkpoints of a store, in RAM.
type catalog struct {
	mu sync.Mutex // also held while a root is written or removed: names change one at a time
	m  map[string]*catalogEntry
}

// catalogEntry is one checkpoint. What it holds is replaced, never changed.
type catalogEntry struct {
	Checkpoint
	root    rootInfo
	all     []rootInfo // the generations on disk, the highest first; one of them is root
	packs   []uint64   // that the root refers to, ascending
	segment uint64     // one of them, or 0

	ids map[uint64]uint64 // identities of packs, as far as they are known

	open *int  // images and files that are open, of all generations; guarded by catalog.mu
	err  error // why the root cannot be read; nil for a sound one
}

func entryOf(r *root, all []rootInfo, info rootInfo) *catalogEntry {
	c := r.Checkpoint
	c.StoredBytes += r.bytes
	return &catalogEntry{
		Checkpoint: c, root: info, all: all, packs: r.top.packs, segment: r.top.segment,
		ids: r.top.ids, open: new(int),
	}
}

// get returns a sound checkpoint. mu must be held.
func (c *catalog) get(name string) (*catalogEntry, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	e, ok := c.m[name]
	if !ok {
		return nil, fmt.Errorf("checkpoint %s: %w", name, ErrNotFound)
	}
	if e.err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", name, e.err)
	}
	return e, nil
}

// mayList says whether a checkpoint lists a pack, or may: its root cannot be read. Two checkpoints have one
// segment where renaming one was interrupted.
func (c *catalog) mayList(number uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.m {
		if _, lists := slices.BinarySearch(e.packs, number); lists || e.err != nil {
			return true
		}
	}
	return false
}

// names returns all names, sorted. mu must be held.
func (c *catalog) names() []string { return sortedKeys(c.m) }

// List returns all checkpoints, sorted by name. It leaves out those whose roots are damaged; Check
// reports these. A reader calls Refresh first.
func (s *Store) List(ctx context.Context) ([]Checkpoint, error) {
	if err := s.Refresh(ctx); err != nil {
		return nil, err
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	list := make([]Checkpoint, 0, len(s.cat.m))
	for _, name := range s.cat.names() {
		if e := s.cat.m[name]; e.err == nil {
			list = append(list, e.Checkpoint)
		}
	}
	return list, nil
}

// Remove forgets a checkpoint. GC frees its space. ErrInUse while an image or a file of
// it is open in this process.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := s.mayWrite(ctx); err != nil {
		return err
	}
	if err := CheckName(name); err != nil {
		return err
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	e, ok := s.cat.m[name] // a damaged one can be removed too
	if !ok {
		return fmt.Errorf("remove %s: %w", name, ErrNotFound)
	}
	if err := e.removableLocked(); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	// The one that counts goes last: until then the checkpoint is there, and it never comes back as
	// one of its older generations.
	for _, info := range slices.Backward(e.all) {
		err := s.blobs.Remove(ctx, rootName(name, info.generation))
		if err != nil && !errors.Is(err, blob.ErrNotFound) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	delete(s.cat.m, name)
	s.changes.Add(1)
	return nil
}

// commit writes a root and notes it. From the moment the root is written the checkpoint exists. old is
// the entry that it replaces; nil for a new name.
func (s *Store) commit(ctx context.Context, r *root, old *catalogEntry) (*catalogEntry, error) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	switch now := s.cat.m[r.Name]; {
	case now != old && old == nil:
		return nil, fmt.Errorf("checkpoint %s: %w", r.Name, ErrExists)
	case now != old:
		return nil, fmt.Errorf("checkpoint %s: %w: it was removed meanwhile", r.Name, ErrNotFound)
	}
	if old != nil {
		r.Generation = old.all[0].generation + 1
	}
	if err := s.writeRoot(ctx, r); err != nil {
		if old != nil && errors.Is(err, errUnsure) {
			s.cat.m[r.Name] = old.with(rootInfo{generation: r.Generation})
		}
		return nil, fmt.Errorf("checkpoint %s: %w", r.Name, err)
	}
	info := rootInfo{generation: r.Generation, bytes: r.bytes}
	e := entryOf(r, []rootInfo{info}, info)
	if old != nil {
		e.open = old.open
		for _, o := range old.all {
			err := s.blobs.Remove(ctx, rootName(r.Name, o.generation))
			if err != nil && !errors.Is(err, blob.ErrNotFound) {
				// Two generations are no harm: the higher one wins, and the next open removes the other.
				s.log.Warn("an old root stays until it can be removed", "checkpoint", r.Name, "err", err)
				e.all = append(e.all, o)
			}
		}
	}
	s.cat.m[r.Name] = e
	s.changes.Add(1)
	return e, nil
}

// with returns the entry with one more generation, the highest.
func (e *catalogEntry) with(info rootInfo) *catalogEntry {
	next := *e
	next.all = append([]rootInfo{info}, e.all...)
	return &next
}

// same says whether two entries stand for the same blobs. Either may be nil. One whose root cannot be
// read is made anew by each Refresh.
func (e *catalogEntry) same(f *catalogEntry) bool {
	if e == nil || f == nil {
		return e == f
	}
	return e.root == f.root && (e.err == nil) == (f.err == nil) && slices.Equal(e.all, f.all)
}

// errUnsure marks the error of a root that may be visible although writing it failed. What the root
// needs must stay until the store is opened again and finds out.
var errUnsure = errors.New("it may have been written although this failed")

// writeRoot writes a root. After an error it is not there, or the error is errUnsure.
func (s *Store) writeRoot(ctx context.Context, r *root) error {
	err := r.write(ctx, s.blobs)
	if errors.Is(err, blob.ErrExists) {
		return fmt.Errorf("%w (%w)", ErrExists, err)
	}
	if err == nil {
		return nil
	}
	rerr := s.blobs.Remove(context.WithoutCancel(ctx), rootName(r.Name, r.Generation))
	if rerr == nil || errors.Is(rerr, blob.ErrNotFound) {
		return err
	}
	return fmt.Errorf("%w; %w: %w", err, errUnsure, rerr)
}

// referenced returns the packs that any checkpoint refers to whose root can be read, ascending. mu must
// be held.
func (c *catalog) referenced() (packs []uint64) {
	for _, e := range c.m {
		packs = append(packs, e.packs...)
	}
	slices.Sort(packs)
	return slices.Compact(packs)
}
