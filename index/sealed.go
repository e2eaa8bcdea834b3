package index

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/index/seal"
)

// A store may be sealed (package seal): without one of its keys nothing can be done with it, and nothing of
// what it has is known but what the directory shows.

var (
	// ErrNoKey: the store is sealed, and no key was given.
	ErrNoKey = errors.New("the store is sealed, and no key was given")
	// ErrWrongKey: the store is sealed with another key.
	ErrWrongKey = seal.ErrWrongKey
	// ErrNotSealed: the store should be sealed, and is not.
	ErrNotSealed = errors.New("a key was given, but the store is not sealed: all of it can be read without one")
)

// A KeySource gets the user's key; nil if there is none. It is called only if a store is sealed, or is made.
type KeySource func(context.Context) (*seal.Key, error)

func (k KeySource) get(ctx context.Context) (*seal.Key, error) {
	if k == nil {
		return nil, nil
	}
	return k(ctx)
}

// must is get where there must be a key.
func (k KeySource) must(ctx context.Context) (seal.Key, error) {
	key, err := k.get(ctx)
	if err == nil && key == nil {
		err = ErrNoKey
	}
	if err != nil {
		return seal.Key{}, err
	}
	return *key, nil
}

// unseal returns what opens a store; nil for one that is not sealed.
func (f *storeFile) unseal(ctx context.Context, dir string, keys KeySource) (*seal.Vault, error) {
	if f.Seal == nil {
		return nil, nil
	}
	key, err := keys.must(ctx)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	v, err := f.Seal.Open(key)
	if errors.Is(err, seal.ErrHeader) {
		err = &CorruptError{Pack: storeFileName, What: "seal", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return v, nil
}

// Sealed says whether the store is sealed.
func (s *Store) Sealed() bool { return s.vault != nil }

// OpenVault returns what seals files beside the packs of the store in dir; nil for one that is not sealed.
func OpenVault(ctx context.Context, dir string, keys KeySource) (*seal.Vault, error) {
	f, err := readStoreFile(dir)
	if err != nil {
		return nil, err
	}
	return f.unseal(ctx, dir, keys)
}

// SealOf says which keys open the store in dir; nil if it is not sealed.
func SealOf(dir string) (*seal.Header, error) {
	f, err := readStoreFile(dir)
	if err != nil {
		return nil, err
	}
	return f.Seal, nil
}

// ChangeSeal changes which keys open the store in dir. Nothing else of it is written. A store that is not
// sealed cannot become so: ErrNotSealed.
func ChangeSeal(ctx context.Context, dir string, wait time.Duration,
	change func(seal.Header) (seal.Header, error)) error {
	if _, err := changedSeal(dir, change); err != nil {
		return err // before a lock is taken, whose file names its holder
	}
	lock, err := lockWriter(ctx, dir, wait, YieldNone)
	if err != nil {
		return err
	}
	defer lock.Close()
	f, err := changedSeal(dir, change)
	if err != nil {
		return err
	}
	return f.write(filepath.Join(dir, storeFileName))
}

// changedSeal is the file of a store with other keys.
func changedSeal(dir string, change func(seal.Header) (seal.Header, error)) (*storeFile, error) {
	f, err := readStoreFile(dir)
	if err != nil {
		return nil, err
	}
	if f.Seal == nil {
		return nil, fmt.Errorf("store %s: %w", dir, ErrNotSealed)
	}
	next, err := change(*f.Seal)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	f.Seal = &next
	return f, nil
}
