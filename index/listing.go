package index

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// listing is the packs and roots in the blob store, in all generations.
type listing struct {
	roots map[string][]rootInfo // the highest generation first
	packs map[uint64][]packInfo // the same
}

// rootInfo is what is known of a root without opening it. Equal ones are the same bytes.
type rootInfo struct {
	generation uint32
	bytes      int64
	tag        string
	odd        bool // no blob has this name, but something else
}

// list finds packs and roots. Roots come first: what a root needs was there before it.
func (s *Store) list(ctx context.Context) (*listing, error) {
	l := &listing{roots: map[string][]rootInfo{}, packs: map[uint64][]packInfo{}}
	roots, err := s.blobs.List(ctx, rootsDirName+"/")
	if err != nil {
		return nil, err
	}
	for _, b := range roots {
		if name, g, ok := parseRootName(b.Name); ok {
			l.roots[name] = append(l.roots[name], rootInfo{g, b.Size, b.Tag, b.Odd})
		} else {
			s.log.Warn("a file in checkpoints/ is not a checkpoint and is ignored", "blob", b.Name)
		}
	}
	packs, err := s.blobs.List(ctx, pack.Prefix)
	if err != nil {
		return nil, err
	}
	for _, b := range packs {
		if n, g, ok := pack.ParseName(b.Name); ok && !b.Odd {
			l.packs[n] = append(l.packs[n], packInfo{generation: g, bytes: b.Size, tag: b.Tag})
		} else {
			s.log.Warn("a file in packs/ is not a pack and is ignored", "blob", b.Name)
		}
	}
	for _, r := range l.roots {
		slices.SortFunc(r, func(a, b rootInfo) int { return cmp.Compare(b.generation, a.generation) })
	}
	for _, p := range l.packs {
		slices.SortFunc(p, func(a, b packInfo) int { return cmp.Compare(b.generation, a.generation) })
	}
	return l, nil
}

// equal says whether two listings are of the same blobs.
func (l *listing) equal(m *listing) bool {
	return maps.EqualFunc(l.roots, m.roots, slices.Equal) && maps.EqualFunc(l.packs, m.packs, slices.Equal)
}

// keeps says whether every checkpoint and pack of another listing is in this one, in any generation.
func (l *listing) keeps(m *listing) bool {
	for name := range m.roots {
		if l.roots[name] == nil {
			return false
		}
	}
	for n := range m.packs {
		if l.packs[n] == nil {
			return false
		}
	}
	return true
}

// listTries bounds how often a reader lists the blobs beside a writer that is busy.
const listTries = 4

// listSettled lists the blobs. If something is gone that was there before, it lists again until two
// listings are the same: a directory that is read while names come and go may show neither the old
// generation of a root nor the new one.
func (s *Store) listSettled(ctx context.Context, before *listing) (*listing, error) {
	last, err := s.list(ctx)
	if err != nil || before == nil || last.keeps(before) {
		return last, err
	}
	for range listTries - 1 {
		l, err := s.list(ctx)
		if err != nil || l.equal(last) {
			return l, err
		}
		last = l
	}
	return last, nil
}

// choosePack returns the highest generation of a pack that can be opened and has one of the identities
// that roots mean, if these are known. For a reader it is the lowest: it has all that the others have, and
// its writer takes it away when it has read the newer one back, page by page. Where that was killed in
// between, the next writer does it (settle).
func (s *Store) choosePack(ctx context.Context, n uint64, all []packInfo, ids []uint64) (packInfo, error) {
	if s.readOnly {
		all = slices.Clone(all)
		slices.Reverse(all)
	}
	for _, info := range all[:len(all)-1] {
		r, err := s.packs.openBlob(ctx, n, info.generation)
		if err == nil {
			if len(ids) == 0 || slices.Contains(ids, r.ID()) {
				return info, r.Close()
			}
			err = hasID(r, ids[0])
			r.Close()
		}
		if !isCorrupt(err) {
			return packInfo{}, err
		}
		s.log.Error("a generation of a pack is damaged: another one is in use", "err", err)
	}
	// It is the last one left. If it is damaged, that is noticed when it is used.
	return all[len(all)-1], nil
}

// rootReaders is how many roots are read at once.
const rootReaders = 8

// readRoots reads roots into entries of the catalog. A name whose roots are all damaged gets an entry
// that says so; a name whose roots are all gone gets none.
func (s *Store) readRoots(ctx context.Context, roots map[string][]rootInfo) (
	entries map[string]*catalogEntry, err error,
) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	entries = make(map[string]*catalogEntry, len(roots))
	var mu sync.Mutex // guards entries
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rootReaders)
	for name, all := range roots {
		g.Go(func() error {
			e, err := s.readEntry(gctx, name, all)
			if e != nil {
				mu.Lock()
				defer mu.Unlock()
				entries[name] = e
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return entries, ctx.Err()
}

// readEntry reads the highest root of a checkpoint that is sound. Nil if none is there any more.
func (s *Store) readEntry(ctx context.Context, name string, all []rootInfo) (*catalogEntry, error) {
	var damage error
	for _, info := range all {
		if info.odd {
			// It is not as if there had been no checkpoint: what it had must stay.
			damage = oddRoot(name, info)
			s.log.Error("a root is no file", "checkpoint", name, "err", damage)
			break
		}
		r, err := s.readRootBrief(ctx, name, info.generation)
		if err == nil {
			return entryOf(r, all, info), nil
		}
		if !isCorrupt(err) {
			return nil, err
		}
		if errors.Is(err, blob.ErrNotFound) {
			continue
		}
		s.log.Error("a root is damaged", "checkpoint", name, "err", err)
		if damage == nil {
			damage = err
		}
	}
	if damage == nil {
		return nil, nil
	}
	return &catalogEntry{
		Checkpoint: Checkpoint{Name: name, Generation: all[0].generation},
		all:        all, root: all[0], err: damage, open: new(int),
	}, nil
}

// errNoFile is the cause of a CorruptError for what is no regular file.
var errNoFile = errors.New("it is no regular file: what has its name must be removed by hand, or be put back")

// oddRoot says that something else has the place of a root.
func oddRoot(name string, info rootInfo) error {
	return &CorruptError{Pack: rootName(name, info.generation), What: "file", Err: errNoFile}
}
