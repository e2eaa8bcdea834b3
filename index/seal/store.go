package seal

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/thawfs/thaw/index/blob"
)

// Store is a blob store whose blobs are sealed in another one.
type Store struct {
	v      *Vault
	inner  blob.Store
	hidden string // names below this directory are sealed; with its slash
}

var (
	_ blob.Store     = (*Store)(nil)
	_ blob.Dropper   = (*Store)(nil)
	_ blob.Describer = (*Store)(nil)
)

// Wrap returns a store whose blobs are sealed in inner. The names of those in the directory hidden are, too.
func (v *Vault) Wrap(inner blob.Store, hidden string) *Store {
	return &Store{v: v, inner: inner, hidden: hidden + "/"}
}

// outer is the name that a blob has in the store below.
func (s *Store) outer(name string) (string, error) {
	if err := blob.CheckName(name); err != nil {
		return "", err
	}
	base, ok := strings.CutPrefix(name, s.hidden)
	if !ok {
		return name, nil
	}
	sealed := s.hidden + s.v.names.seal(base)
	return sealed, blob.CheckName(sealed)
}

// named says in an error about a sealed name which one it is.
func named(name, outer string, err error) error {
	if err == nil || name == outer {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// Create implements blob.Store.
func (s *Store) Create(ctx context.Context, name string) (blob.Writer, error) {
	outer, err := s.outer(name)
	if err != nil {
		return nil, err
	}
	w, err := s.inner.Create(ctx, outer)
	if err != nil {
		return nil, named(name, outer, err)
	}
	return newWriter(s.v, w, name), nil
}

// Open implements blob.Store.
func (s *Store) Open(ctx context.Context, name string) (blob.Object, error) {
	outer, err := s.outer(name)
	if err != nil {
		return nil, err
	}
	below, err := s.inner.Open(ctx, outer)
	if err != nil {
		return nil, named(name, outer, err)
	}
	o := &object{v: s.v, Object: below, name: name}
	var ok bool
	if o.size, ok = plainSize(below.Size()); !ok {
		below.Close()
		return nil, damaged(name, "it is too short, or not sealed")
	}
	if err := o.unlock(forBlob); err != nil {
		below.Close()
		return nil, err
	}
	return o, nil
}

// List implements blob.Store. Sizes are those of the content; of what is not sealed that is 0.
func (s *Store) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	below := prefix
	if strings.HasPrefix(prefix, s.hidden) {
		below = s.hidden
	}
	list, err := s.inner.List(ctx, below)
	if err != nil {
		return nil, err
	}
	out := list[:0]
	for _, b := range list {
		if base, ok := strings.CutPrefix(b.Name, s.hidden); ok {
			if base, ok = s.v.names.open(base); !ok {
				continue // nothing of this store
			}
			b.Name = s.hidden + base
		}
		if !strings.HasPrefix(b.Name, prefix) || blob.CheckName(b.Name) != nil {
			continue
		}
		if !b.Odd {
			b.Size, _ = plainSize(b.Size)
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b blob.Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove implements blob.Store.
func (s *Store) Remove(ctx context.Context, name string) error {
	outer, err := s.outer(name)
	if err != nil {
		return err
	}
	return named(name, outer, s.inner.Remove(ctx, outer))
}

// Drop implements blob.Dropper.
func (s *Store) Drop(ctx context.Context, name string) error {
	outer, err := s.outer(name)
	if err != nil {
		return err
	}
	return blob.Drop(ctx, s.inner, outer)
}

// Medium implements blob.Describer.
func (s *Store) Medium() blob.Medium { return blob.MediumOf(s.inner) }
