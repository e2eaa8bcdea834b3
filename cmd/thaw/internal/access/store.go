package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/index"
)

// writerWait is how long a command that writes waits for another one.
const writerWait = 30 * time.Second

// Stores is what a command opens stores with.
type Stores struct {
	Log  *slog.Logger
	Note func(format string, args ...any) // tells the user something, one line
	Wait time.Duration                    // how long another command that writes is waited for; 0: writerWait

	Keys     index.KeySource // see index.OpenOptions
	MustSeal bool
}

// Read opens a store for reading, gets something out of it and closes it. It waits for nobody.
func Read[T any](ctx context.Context, s Stores, dir string, get func(*index.Store) (T, error)) (
	got T, err error) {
	if err := Answering(ctx, dir); err != nil {
		return got, err
	}
	store, err := index.Open(ctx, dir,
		index.OpenOptions{ReadOnly: true, Log: s.Log, Keys: s.Keys, MustSeal: s.MustSeal})
	if err != nil {
		return got, err
	}
	if why := Unwritable(dir); why != "" {
		s.Note("store %s can only be read: %s", dir, why)
	}
	return closing(store, get)
}

// Write opens a store for writing, does something with it and closes it. Another command that writes
// is waited for. The keys are those of s, unless o has some.
func Write[T any](ctx context.Context, s Stores, dir string, o index.OpenOptions,
	do func(*index.Store) (T, error)) (got T, err error) {
	store, err := openToWrite(ctx, s, dir, o)
	if err != nil {
		return got, err
	}
	return closing(store, do)
}

// openToWrite opens a store for writing. Another command that writes is waited for.
func openToWrite(ctx context.Context, s Stores, dir string, o index.OpenOptions) (*index.Store, error) {
	if err := Answering(ctx, dir); err != nil {
		return nil, err
	}
	o.Log, o.Keeper = s.Log, keeper
	if o.Keys == nil {
		o.Keys, o.MustSeal = s.Keys, s.MustSeal
	}
	store, err := openOrCreate(ctx, dir, o)
	if errors.Is(err, index.ErrLocked) {
		o.Wait = cmp.Or(s.Wait, writerWait)
		s.Note("%v; waiting up to %v", err, o.Wait)
		store, err = openOrCreate(ctx, dir, o)
	}
	return store, err
}

// KeeperCommand is the name of the hidden command that keeps the index of a store for another one.
const KeeperCommand = "keeper-of-an-index"

// keeper is that command. It has a process group of its own: a ctrl-C on the terminal reaches only
// the command that it works for, and it ends with that one's pipe.
func keeper() *exec.Cmd {
	cmd := process.Self(KeeperCommand)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
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

// closing does something with a store and closes it.
func closing[T any](s *index.Store, do func(*index.Store) (T, error)) (T, error) {
	got, err := do(s)
	if cerr := s.Close(); cerr != nil && err == nil {
		err = fmt.Errorf("close store %s: %w", s.Dir(), cerr)
	}
	return got, err
}

// Unwritable says why a store cannot be written to; "" if it can.
func Unwritable(dir string) string {
	switch err := unix.Access(dir, unix.W_OK); {
	case errors.Is(err, unix.EROFS):
		return "its file system is read-only"
	case errors.Is(err, unix.EACCES):
		return "this user may not write to it"
	}
	return ""
}

// Server connects to the server of a store; nil if it has none, or one that is just starting, which
// will read the store as it is by then, or just ending.
func Server(ctx context.Context, dir string) (*control.Client, error) {
	if err := Answering(ctx, dir); err != nil {
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
		m, rerr := Resolve(ctx, s.Mount)
		if rerr != nil {
			return nil, nil
		}
		if c, err = control.Connect(ctx, m.Socket); errors.Is(err, control.ErrNoServer) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, exitcode.WithHint(exitcode.ServerGone, fmt.Errorf("server of store %s (process %d): %w",
			dir, s.PID, err), SilentHint(s))
	}
	return c, nil
}

// ServerStatus asks the server of a store how it is; ok is false where it has none.
func ServerStatus(ctx context.Context, dir string) (s control.Status, ok bool, err error) {
	c, err := Server(ctx, dir)
	if c != nil {
		s, err = c.Status(ctx)
	}
	return s, c != nil, err
}

// SilentHint says what to do about a server that does not answer.
func SilentHint(s index.Server) string {
	hint := fmt.Sprintf("is process %d stopped, or another user's? kill -CONT wakes it", s.PID)
	if s.Mount != "" {
		hint += "; " + control.GiveUpHint(s.Mount)
	}
	return hint
}

// Follow makes the mount of a store, where there is one, show what a command has changed. The change
// stands whether the server answers or not.
func Follow(ctx context.Context, dir string) error {
	ctx = context.WithoutCancel(ctx)
	c, err := Server(ctx, dir)
	if c != nil {
		err = c.Refresh(ctx)
	}
	if err != nil {
		return fmt.Errorf("it is done, but the mount may not show it yet: %w", err)
	}
	return nil
}

// Heed finds out whether the server of a store that was looked at answers, where it has one. What was
// found out of the store is right in any case.
func Heed(ctx context.Context, dir string) error {
	_, _, err := ServerStatus(ctx, dir)
	if err == nil || errors.Is(err, fs.ErrPermission) { // another user's server
		return nil
	}
	return fmt.Errorf("this is what the store has, but the server of its mount is in trouble: %w", err)
}
