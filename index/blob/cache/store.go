package cache

import (
	"context"
	"fmt"
	"sync"

	"github.com/thawfs/thaw/index/blob"
)

// Store is a blob.Store whose objects are read by way of a Cache.
type Store struct {
	blob.Store
	cache *Cache
	id    string

	mu     sync.Mutex
	listed map[string]blob.Info // what the last listings said; guarded by mu
}

var (
	_ blob.Store     = (*Store)(nil)
	_ blob.Describer = (*Store)(nil)
	_ blob.Dropper   = (*Store)(nil)
)

// Wrap puts the cache around a store. id distinguishes its blobs from those of all other stores that use
// the directory.
func (c *Cache) Wrap(inner blob.Store, id string) *Store {
	return &Store{Store: inner, cache: c, id: id, listed: map[string]blob.Info{}}
}

// Medium implements blob.Describer: what is not cached costs what the store costs.
func (s *Store) Medium() blob.Medium { return blob.MediumOf(s.Store) }

// Drop implements blob.Dropper.
func (s *Store) Drop(ctx context.Context, name string) error { return blob.Drop(ctx, s.Store, name) }

// List implements blob.Store. What it lists can be opened without asking the store, as far as it is cached.
func (s *Store) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	all, err := s.Store.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.listed {
		if len(name) >= len(prefix) && name[:len(prefix)] == prefix {
			delete(s.listed, name)
		}
	}
	for _, b := range all {
		if b.Tag != "" && !b.Odd {
			s.listed[b.Name] = b
		}
	}
	return all, nil
}

// Remove implements blob.Store.
func (s *Store) Remove(ctx context.Context, name string) error {
	s.forget(name)
	return s.Store.Remove(ctx, name)
}

// Create implements blob.Store.
func (s *Store) Create(ctx context.Context, name string) (blob.Writer, error) {
	s.forget(name)
	return s.Store.Create(ctx, name)
}

func (s *Store) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listed, name)
}

// Open implements blob.Store. A blob that was listed, and of which something is cached, is opened without
// asking the store. If it was removed since, then reading what is not cached fails with blob.ErrNotFound.
func (s *Store) Open(ctx context.Context, name string) (blob.Object, error) {
	if o, err := s.openListed(ctx, name); o != nil || err != nil {
		return o, err
	}
	inner, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	t, ok := inner.(blob.Tagged)
	if !ok || t.Tag() == "" {
		return inner, nil
	}
	f := s.cache.file(keyOf(s.id, name, t.Tag(), inner.Size()), inner.Size(), true)
	if f == nil {
		return inner, nil
	}
	return &Object{inner: inner, cache: s.cache, f: f}, nil
}

// openListed opens a blob by its line in a listing; nil if that cannot be done.
func (s *Store) openListed(ctx context.Context, name string) (blob.Object, error) {
	by, ok := s.Store.(blob.InfoOpener)
	if !ok {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	info, ok := s.listed[name]
	s.mu.Unlock()
	if !ok {
		return nil, nil
	}
	f := s.cache.file(keyOf(s.id, name, info.Tag, info.Size), info.Size, false)
	if f == nil {
		return nil, nil
	}
	inner, err := by.OpenInfo(info)
	if err != nil {
		s.cache.release(f)
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &Object{inner: inner, cache: s.cache, f: f}, nil
}
