package main

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

// mountRef is a place on a thaw mount: the mount's root, the checkpoint below it ("" for the root
// itself), and the control socket of the server.
type mountRef struct{ Root, Name, Socket string }

// dot is the directory of the mount that is not a checkpoint; its socket is a link to the server's.
const dot = ".thaw"

// resolveMount finds the thaw mount that a path is on: MNT, MNT/NAME, or anything below, also
// through a bind mount. It takes the mount from the table of mounts and asks the server for one
// thing only, where its socket is, with a bound in time.
func resolveMount(ctx context.Context, path string) (mountRef, error) {
	at, on, err := fs.Locate(path)
	if err != nil {
		return mountRef{}, err
	}
	if !on {
		return mountRef{}, notOnMount(path)
	}
	if at.Mount == "" {
		return mountRef{}, exitcode.WithHint(exitcode.NotFound, fmt.Errorf(
			"%s is a bind mount of a part of a thaw mount; the mount itself is not in this namespace", path),
			"use the mount itself, or umount(8)")
	}
	ref := mountRef{Root: at.Mount, Name: firstElement(at.In)}
	socket, err := bounded(ctx, func() (string, error) {
		return os.Readlink(filepath.Join(ref.Root, dot, "socket"))
	})
	switch {
	case errors.Is(err, errSilent):
		return mountRef{}, silentServer(ref.Root)
	case ctx.Err() != nil:
		return mountRef{}, err
	case isDead(err):
		return mountRef{}, deadServer(path, ref.Root)
	case errors.Is(err, os.ErrPermission):
		return mountRef{}, exitcode.WithHint(exitcode.Failure, err,
			"only its user can use a mount without --allow-other; root can end it with --abort")
	case err != nil: // that of a lab's raw server has no socket
		return mountRef{}, notOnMount(path)
	}
	ref.Socket = socket
	return ref, nil
}

// answering makes sure that a path which lies on a thaw mount can be used: its server answers.
// Whatever else may be wrong with it shows when it is used.
func answering(ctx context.Context, path string) error {
	if _, err := resolveMount(ctx, path); errors.Is(err, errSilent) || ctx.Err() != nil {
		return err
	}
	return nil
}

// answerPatience is how long a server may take to begin to answer.
const answerPatience = 5 * time.Second

// errSilent: a server does not answer.
var errSilent = errors.New("its server does not answer")

// silentServer is the error for a mount whose server hangs or is stopped.
func silentServer(mnt string) error {
	return exitcode.WithHint(exitcode.ServerGone,
		fmt.Errorf("%s: %w (waited %v)", mnt, errSilent, answerPatience),
		"is its process stopped? To free what waits for it: thaw umount --abort "+mnt)
}

// bounded does something that may hang in the kernel. What hangs is left behind: it ends when the
// server answers, or with this process.
func bounded[T any](ctx context.Context, f func() (T, error)) (T, error) {
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
		return none, errSilent
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// isDead says whether an error is that of a FUSE mount whose server is gone.
func isDead(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// deadServer is the error for a path on a mount whose server is gone.
func deadServer(path, mnt string) error {
	return exitcode.WithHint(exitcode.ServerGone,
		fmt.Errorf("%s: the server of this mount is dead", path),
		"free the mount point with: thaw umount "+mnt)
}

// notOnMount is the error for a path that is on no mount.
func notOnMount(path string) error {
	return exitcode.WithHint(exitcode.NotFound,
		fmt.Errorf("%s is not on a thaw mount", path), "mount the store with: thaw mount STORE MNT")
}

// resolveCheckpoint is resolveMount for a path that must name a checkpoint.
func resolveCheckpoint(ctx context.Context, path string) (mountRef, error) {
	ref, err := resolveMount(ctx, path)
	if err != nil {
		return ref, err
	}
	if ref.Name == "" || ref.Name == dot {
		return ref, exitcode.Errorf(exitcode.Usage, "%s: give a checkpoint on the mount: MNT/NAME", path)
	}
	_, err = bounded(ctx, func() (os.FileInfo, error) {
		return os.Stat(filepath.Join(ref.Root, ref.Name))
	})
	if errors.Is(err, errSilent) {
		return ref, silentServer(ref.Root)
	}
	if ctx.Err() != nil {
		return ref, err
	}
	if err != nil {
		return ref, exitcode.WithHint(exitcode.NotFound,
			fmt.Errorf("no checkpoint %q on %s", ref.Name, ref.Root), "see: ls "+ref.Root)
	}
	return ref, nil
}

func firstElement(rel string) string {
	if rel == "." {
		return ""
	}
	first, _, _ := strings.Cut(rel, string(filepath.Separator))
	return first
}

// server connects to the server of the mount.
func (r mountRef) server(ctx context.Context) (*control.Client, error) {
	c, err := control.Connect(ctx, r.Socket)
	if errors.Is(err, control.ErrNoServer) {
		return nil, exitcode.WithHint(exitcode.ServerGone, fmt.Errorf("server of %s: %w", r.Root, err),
			"was the store moved or removed? umount(8) ends the mount while nothing uses it; "+
				"to cut it off: thaw umount --abort "+r.Root)
	}
	if err != nil {
		return nil, fmt.Errorf("server of %s: %w", r.Root, err)
	}
	return c, nil
}
