package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

// progressFunc hears how far work is. It may be called from several goroutines.
type progressFunc = func(index.Progress)

// writerWait is how long a command that writes waits for another one.
const writerWait = 30 * time.Second

// readStore opens a store for reading, does something with it and closes it. It waits for nobody.
func (a *app) readStore(ctx context.Context, dir string, f func(*index.Store) error) error {
	if err := answering(ctx, dir); err != nil {
		return err
	}
	s, err := index.Open(ctx, dir, index.OpenOptions{ReadOnly: true, Log: a.log})
	if err != nil {
		return err
	}
	if why := unwritable(dir); why != "" {
		a.note("store %s can only be read: %s", dir, why)
	}
	return closing(s, f(s))
}

// writeStore opens a store for writing, does something with it and closes it. Another command that
// writes is waited for.
func (a *app) writeStore(ctx context.Context, dir string, o index.OpenOptions,
	f func(*index.Store) error) error {
	if err := answering(ctx, dir); err != nil {
		return err
	}
	o.Log, o.Keeper = a.log, keeperCommand
	s, err := openOrCreate(ctx, dir, o)
	if errors.Is(err, index.ErrLocked) {
		a.note("%v; waiting up to %v", err, writerWait)
		o.Wait = writerWait
		s, err = openOrCreate(ctx, dir, o)
	}
	if err != nil {
		return err
	}
	return closing(s, f(s))
}

// openOrCreate opens the store in dir; with o.Create it makes one where there is none.
func openOrCreate(ctx context.Context, dir string, o index.OpenOptions) (*index.Store, error) {
	create := o.Create
	o.Create = false
	store, err := index.Open(ctx, dir, o)
	if !create || !errors.Is(err, index.ErrNotStore) {
		return store, err
	}
	if fi, serr := os.Stat(dir); serr == nil && !fi.IsDir() {
		return nil, err // a file, which no store can be made in
	}
	o.Create = true
	return index.Open(ctx, dir, o)
}

// closing closes a store with which something was done, err being how that went.
func closing(s *index.Store, err error) error {
	if cerr := s.Close(); cerr != nil && err == nil {
		return fmt.Errorf("close store %s: %w", s.Dir(), cerr)
	}
	return err
}

// unwritable says why a store cannot be written to; "" if it can.
func unwritable(dir string) string {
	switch err := unix.Access(dir, unix.W_OK); {
	case errors.Is(err, unix.EROFS):
		return "its file system is read-only"
	case errors.Is(err, unix.EACCES):
		return "this user may not write to it"
	}
	return ""
}

// storeServer connects to the server of a store; nil if it has none, or one that is just starting,
// which will read the store as it is by then, or just ending.
func storeServer(ctx context.Context, dir string) (*control.Client, error) {
	if err := answering(ctx, dir); err != nil {
		return nil, err
	}
	s, ok, err := index.ServerOf(dir)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, nil // it is not a store, which is said when it is opened
	}
	if err != nil || !ok {
		return nil, err
	}
	c, err := control.Connect(ctx, filepath.Join(dir, control.SocketName))
	if errors.Is(err, control.ErrNoServer) {
		// Where the store had no room for its socket, the mount says where that is.
		ref, rerr := resolveMount(ctx, s.Mount)
		if rerr != nil {
			return nil, nil
		}
		if c, err = control.Connect(ctx, ref.Socket); errors.Is(err, control.ErrNoServer) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, exitcode.WithHint(exitcode.ServerGone, fmt.Errorf("server of store %s (process %d): %w",
			dir, s.PID, err), silentHint(s))
	}
	return c, nil
}

// silentHint says what to do about a server that does not answer.
func silentHint(s index.Server) string {
	hint := fmt.Sprintf("is process %d stopped, or another user's?", s.PID)
	if s.Mount != "" {
		hint += " To end it by force: thaw umount --abort " + s.Mount
	}
	return hint
}

// follow makes the mount of a store, where there is one, show what a command has changed. The change
// stands whether the server answers or not.
func (a *app) follow(ctx context.Context, dir string) {
	ctx = context.WithoutCancel(ctx)
	if err := tell(ctx, dir, verbRefresh); err != nil {
		a.silent = fmt.Errorf("it is done, but the mount may not show it yet: %w", err)
	}
}

// heed finds out whether the server of a store that was looked at answers, where it has one. What was
// found out of the store is right in any case.
func (a *app) heed(ctx context.Context, dir string) {
	err := tell(ctx, dir, verbStatus)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // another user's server
		a.silent = fmt.Errorf("this is what the store has, but the server of its mount is in trouble: %w", err)
	}
}

// tell asks the server of a store, where it has one, for a verb without arguments or answer.
func tell(ctx context.Context, dir, verb string) error {
	c, err := storeServer(ctx, dir)
	if c != nil {
		err = c.Call(ctx, verb, struct{}{}, nil)
	}
	return err
}
