package access

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
)

// Mount is a place on a thaw mount: the mount's root, the checkpoint below it ("" for the root
// itself), and the control socket of the server.
type Mount struct{ Root, Name, Socket string }

// Dot is the directory of a mount that is not a checkpoint; its socket is a link to the server's.
const Dot = ".thaw"

// Resolve finds the thaw mount that a path is on: MNT, MNT/NAME, or anything below, also through a
// bind mount. It takes the mount from the table of mounts and asks the server for one thing only,
// where its socket is, with a bound in time.
func Resolve(ctx context.Context, path string) (Mount, error) {
	at, on, err := fs.Locate(path)
	switch {
	case err != nil:
		return Mount{}, err
	case !on:
		return Mount{}, NotOnMount(path)
	case at.Mount == "":
		return Mount{}, exitcode.WithHint(exitcode.NotFound, fmt.Errorf(
			"%s is a bind mount of a part of a thaw mount; the mount itself is not in this namespace", path),
			"use the mount itself, or umount(8)")
	}
	m := Mount{Root: at.Mount}
	if at.In != "." {
		m.Name, _, _ = strings.Cut(at.In, string(filepath.Separator))
	}
	m.Socket, err = Bounded(ctx, m.Root, func() (string, error) {
		return os.Readlink(filepath.Join(m.Root, Dot, "socket"))
	})
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, ErrSilent):
		return Mount{}, err
	case ctx.Err() != nil:
		return Mount{}, ctx.Err()
	case IsDead(err):
		return Mount{}, exitcode.WithHint(exitcode.ServerGone,
			fmt.Errorf("%s: the server of this mount is dead", path),
			"free the mount point with: thaw umount "+m.Root)
	case errors.Is(err, os.ErrPermission):
		return Mount{}, exitcode.WithHint(exitcode.Failure, err,
			`only its user can use a mount that lets in nobody else ("thaw help security"); root can unmount it`)
	}
	return Mount{}, NotOnMount(path) // that of a lab's raw server has no socket
}

// Checkpoint is Resolve for a path that must name a checkpoint, and connects to its server.
func Checkpoint(ctx context.Context, path string) (Mount, *control.Client, error) {
	m, err := Resolve(ctx, path)
	if err != nil {
		return m, nil, err
	}
	if m.Name == "" || m.Name == Dot {
		return m, nil, exitcode.Errorf(exitcode.Usage, "%s: give a checkpoint on the mount: MNT/NAME", path)
	}
	_, err = Bounded(ctx, m.Root, func() (os.FileInfo, error) {
		return os.Stat(filepath.Join(m.Root, m.Name))
	})
	switch {
	case errors.Is(err, ErrSilent):
		return m, nil, err
	case ctx.Err() != nil: // whatever the answer was: without a client there must be an error
		return m, nil, ctx.Err()
	case err != nil:
		return m, nil, m.NoCheckpoint(m.Name)
	}
	c, err := m.Server(ctx)
	return m, c, err
}

// NoCheckpoint is the error for a checkpoint that the mount does not have.
func (m Mount) NoCheckpoint(name string) error {
	return exitcode.WithHint(exitcode.NotFound,
		fmt.Errorf("no checkpoint %q on %s", name, m.Root), "see: ls "+m.Root)
}

// Server connects to the server of the mount.
func (m Mount) Server(ctx context.Context) (*control.Client, error) {
	c, err := control.Connect(ctx, m.Socket)
	if err == nil {
		return c, nil
	}
	err = fmt.Errorf("server of %s: %w", m.Root, err)
	if errors.Is(err, control.ErrNoServer) {
		err = exitcode.WithHint(exitcode.ServerGone, err,
			"was the store moved or removed? umount(8) ends the mount while nothing uses it; "+
				control.GiveUpHint(m.Root))
	}
	return nil, err
}

// Answering makes sure that paths which lie on a thaw mount can be used: its server answers.
// Whatever else may be wrong with them shows when they are used. An end of the context is an error of its
// own, not that of a path which is on no mount.
func Answering(ctx context.Context, paths ...string) error {
	for _, path := range paths {
		if _, err := Resolve(ctx, path); errors.Is(err, ErrSilent) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// answerPatience is how long a server may take to begin to answer.
const answerPatience = 5 * time.Second

// ErrSilent: a server hangs or is stopped.
var ErrSilent = errors.New("its server does not answer")

// Bounded does something that may hang in the kernel because the server of a mount hangs: then the
// error is ErrSilent. What hangs is left behind: it ends when the server answers, or with this
// process.
func Bounded[T any](ctx context.Context, mnt string, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	timer := time.NewTimer(answerPatience)
	defer timer.Stop()
	var none T
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		return none, exitcode.WithHint(exitcode.ServerGone,
			fmt.Errorf("%s: %w (waited %v)", mnt, ErrSilent, answerPatience),
			control.StoppedHint(mnt))
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// IsDead says whether an error is that of a FUSE mount whose server is gone.
func IsDead(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// NotOnMount is the error for a path that is on no mount.
func NotOnMount(path string) error {
	return exitcode.WithHint(exitcode.NotFound,
		fmt.Errorf("%s is not on a thaw mount", path), "mount the store with: thaw mount STORE MNT")
}
