package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// mountRef is a place on a thaw mount: the mount's root, the checkpoint below it ("" for the root
// itself), and the control socket of the server.
type mountRef struct{ Root, Name, Socket string }

// dot is the directory of the mount that is no checkpoint; its socket is a link to the server's.
const dot = ".thaw"

// resolveMount finds the thaw mount that a path is on: MNT, MNT/NAME, or anything below.
func resolveMount(path string) (mountRef, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return mountRef{}, err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	dead := "" // the uppermost directory that answers as a mount without a server does
	for dir := abs; ; dir = filepath.Dir(dir) {
		// What a link says is asked of the server each time; a stat may come out of the cache.
		socket, err := os.Readlink(filepath.Join(dir, dot, "socket"))
		switch {
		case err == nil:
			rel, err := filepath.Rel(dir, abs)
			return mountRef{Root: dir, Name: firstElement(rel), Socket: socket}, err
		case isDead(err):
			dead = dir
		case errors.Is(err, os.ErrPermission):
			return mountRef{}, exitcode.WithHint(exitcode.Failure, err,
				"a mount without --allow-other is its user's alone; root can end it with --abort")
		case dead != "" || dir == filepath.Dir(dir):
			return mountRef{}, notOnMount(path, dead)
		}
	}
}

// isDead says whether an error is that of a FUSE mount whose server is gone.
func isDead(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// notOnMount is the error for a path that is on no mount, or on the dead one at dead.
func notOnMount(path, dead string) error {
	if dead != "" {
		return exitcode.WithHint(exitcode.ServerGone,
			fmt.Errorf("%s: the server of this mount is dead", path),
			"free the mount point with: thaw umount "+dead)
	}
	return exitcode.WithHint(exitcode.NotFound,
		fmt.Errorf("%s is not on a thaw mount", path), "mount the store with: thaw mount STORE MNT")
}

// resolveCheckpoint is resolveMount for a path that must name a checkpoint.
func resolveCheckpoint(path string) (mountRef, error) {
	ref, err := resolveMount(path)
	if err != nil {
		return ref, err
	}
	if ref.Name == "" || ref.Name == dot {
		return ref, exitcode.Errorf(exitcode.Usage, "%s: give a checkpoint on the mount: MNT/NAME", path)
	}
	if _, err := os.Stat(filepath.Join(ref.Root, ref.Name)); err != nil {
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
		return nil, exitcode.With(exitcode.ServerGone, fmt.Errorf("server of %s: %w", r.Root, err))
	}
	if err != nil {
		return nil, fmt.Errorf("server of %s: %w", r.Root, err)
	}
	return c, nil
}
