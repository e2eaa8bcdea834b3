package index

import (
	"context"
	"encoding/binary"
	"encoding/json"
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
	rootBytes int64
	packs     []uint64 // that the root refers to, ascending
	segment   uint64   // one of them, or 0

	open *int  // images and files that are open, of all generations; guarded by catalog.mu
	err  error // why the root cannot be read; nil for a sound one
}

func entryOf(r *root) *catalogEntry {
	c := r.Checkpoint
	c.StoredBytes += r.bytes
	return &catalogEntry{
		Checkpoint: c, rootBytes: r.bytes, packs: r.top.packs, segment: r.top.segment, open: new(int),
	}
}

// get gives a sound checkpoint. mu must be held.
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

// names gives all names, sorted. mu must be held.
func (c *catalog) names() []string { return sortedKeys(c.m) }

// catalogRow is a checkpoint's row in Badger: enough of its root that opening the store need not
// read it.
type catalogRow struct {
	Checkpoint Checkpoint `json:"checkpoint"`
	RootBytes  int64      `json:"root_bytes"`
	Segment    uint64     `json:"segment,omitempty"`
	Packs      []byte     `json:"packs"` // varints: gaps
}

func (e *catalogEntry) row() (row, error) {
	r := catalogRow{Checkpoint: e.Checkpoint, RootBytes: e.rootBytes, Segment: e.segment}
	last := uint64(0)
	for _, p := range e.packs {
		r.Packs = binary.AppendUvarint(r.Packs, p-last)
		last = p
	}
	b, err := json.Marshal(r)
	if err != nil {
		return row{}, fmt.Errorf("index checkpoint %s: %w", e.Name, err)
	}
	return row{checkpointKey(e.Name), b}, nil
}

func parseCatalogRow(value []byte) (*catalogEntry, error) {
	var r catalogRow
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	e := &catalogEntry{
		Checkpoint: r.Checkpoint, rootBytes: r.RootBytes, segment: r.Segment, open: new(int),
	}
	last := uint64(0)
	for b := r.Packs; len(b) > 0; {
		d, w := binary.Uvarint(b)
		if w <= 0 {
			return nil, errNode
		}
		b = b[w:]
		last += d
		e.packs = append(e.packs, last)
	}
	return e, nil
}

// List gives all checkpoints, by name. One whose root is damaged is not among them; Check tells.
func (s *Store) List(ctx context.Context) ([]Checkpoint, error) {
	if err := s.enter(ctx); err != nil {
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

// Remove forgets a checkpoint. Its space is given back by GC. ErrInUse while an image or a file of
// it is open.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := s.enter(ctx); err != nil {
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
	if *e.open > 0 {
		return fmt.Errorf("remove %s: %w", name, ErrInUse)
	}
	err := s.blobs.Remove(ctx, rootName(name, e.Generation))
	if err != nil && !errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	delete(s.cat.m, name)
	s.index(func(k *keyDB) error { return k.update([]row{{key: checkpointKey(name)}}) })
	return nil
}

// use counts an open image or file of a checkpoint, so that Remove keeps off, and gives its entry.
// The caller gives it back with unuse.
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

// commit writes a root, which is the moment from which the checkpoint is there, and notes it. old
// is the entry that it replaces; nil for a new name.
func (s *Store) commit(ctx context.Context, r *root, old *catalogEntry) (*catalogEntry, error) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	switch now := s.cat.m[r.Name]; {
	case now != old && old == nil:
		return nil, fmt.Errorf("checkpoint %s: %w", r.Name, ErrExists)
	case now != old:
		return nil, fmt.Errorf("checkpoint %s: %w: it was removed meanwhile", r.Name, ErrNotFound)
	}
	if err := s.writeRoot(ctx, r); err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", r.Name, err)
	}
	e := entryOf(r)
	if old != nil {
		e.open = old.open
		// Two generations are no harm: the higher one wins, and the next open removes the other.
		if err := s.blobs.Remove(ctx, rootName(old.Name, old.Generation)); err != nil {
			s.log.Warn("an old root stays until it can be removed", "checkpoint", old.Name, "err", err)
		}
	}
	s.cat.m[r.Name] = e
	s.index(func(k *keyDB) error {
		r, err := e.row()
		if err != nil {
			return err
		}
		return k.update([]row{r})
	})
	return e, nil
}

// errUnsure marks the error of a root that may have become visible all the same: what it needs must
// stay, until the store is opened again and finds out.
var errUnsure = errors.New("it may be there all the same")

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

// referenced gives the packs that any checkpoint refers to, ascending; false if there are roots
// that cannot be read, so that nobody knows. mu must be held.
func (c *catalog) referenced() (packs []uint64, all bool) {
	all = true
	for _, e := range c.m {
		packs = append(packs, e.packs...)
		all = all && e.err == nil
	}
	slices.Sort(packs)
	return slices.Compact(packs), all
}
