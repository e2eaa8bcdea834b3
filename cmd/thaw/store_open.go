package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

// A store that is locked while nobody answers on its socket belongs to another command, or to a
// server that is just starting or stopping: worth a moment's wait.
const (
	lockPatience = 5 * time.Second
	lockRetry    = 50 * time.Millisecond
)

// openStore gives access to a store, by its server where it has one. create makes a store in a
// directory that is missing or empty.
func (a *app) openStore(ctx context.Context, dir string, o index.OpenOptions) (storeAPI, error) {
	deadline := time.Now().Add(lockPatience)
	for waited := false; ; waited = true {
		client, err := control.Connect(ctx, filepath.Join(dir, control.SocketName))
		if err == nil {
			return &remoteStore{client}, nil
		}
		if !errors.Is(err, control.ErrNoServer) {
			return nil, exitcode.WithHint(exitcode.Locked,
				fmt.Errorf("ask the server of store %s: %w", dir, err), "is it another user's?")
		}
		store, err := openOrCreate(ctx, dir, o, a.log)
		if err == nil {
			return &localStore{store: store, log: a.log}, nil
		}
		if !errors.Is(err, index.ErrLocked) || time.Now().After(deadline) {
			return nil, err
		}
		if !waited {
			a.note("store %s is in use by another command, waiting a little", dir)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockRetry):
		}
	}
}

// openOrCreate opens the store in dir; with o.Create it makes one where there is none.
func openOrCreate(ctx context.Context, dir string, o index.OpenOptions,
	log *slog.Logger) (*index.Store, error) {
	store, err := index.Open(ctx, dir, index.OpenOptions{Log: log, Wrap: o.Wrap})
	if !o.Create || !errors.Is(err, index.ErrNotStore) {
		return store, err
	}
	if fi, serr := os.Stat(dir); serr == nil && !fi.IsDir() {
		return nil, err // a file, which no store can be made in
	}
	o.Log = log
	return index.Open(ctx, dir, o)
}

// withStore opens a store that exists, does something with it and closes it.
func (a *app) withStore(ctx context.Context, dir string, f func(storeAPI) error) (err error) {
	return a.withStoreOptions(ctx, dir, index.OpenOptions{}, f)
}

func (a *app) withStoreOptions(ctx context.Context, dir string, o index.OpenOptions,
	f func(storeAPI) error) (err error) {
	s, err := a.openStore(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("close store %s: %w", dir, cerr)
		}
	}()
	return f(s)
}
