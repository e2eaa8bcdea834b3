package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

const (
	exitPatience   = 15 * time.Second // how long umount waits for a server to end
	detachPatience = time.Second      // the same where it may have users for long
)

type umountOptions struct{ abort, detach bool }

func newUmountCommand(a *app) *cobra.Command {
	var o umountOptions
	cmd := &cobra.Command{
		Use:     "umount MNT",
		Aliases: []string{"unmount"},
		Short:   "End a mount",
		Long: `Unmount a store and wait until its server has ended.

A mount in use stays, and the error says who uses it: processes with files of it open
or mapped, bind mounts, overlays, other mount namespaces (containers).

With --detach the mount is removed from the directory tree anyway. Its server goes on
until all open files are closed; meanwhile the store cannot be mounted again.

With --abort the connection to the kernel is ended first: processes that use the mount
get I/O errors at once and wait no longer, also if the server is dead or hangs, or if
the mount was detached. Machines that run from the mount lose the memory that they
have not touched yet. It does not access the mount itself, so it never hangs.` +
			exitStatus(exitcode.NotFound, exitcode.Busy,
				exitcode.ServerGone),
		Example: `  thaw umount /mnt/thaw
  thaw umount /mnt/thaw --detach`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeMount,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runUmount(cmd.Context(), a, args[0], o), "umount %s", args[0])
		},
	}
	cmd.Flags().BoolVar(&o.abort, "abort", false,
		"cut the connection first; users of the mount get I/O errors")
	cmd.Flags().BoolVar(&o.detach, "detach", false,
		"remove the mount though it is in use; its server ends with its last user")
	cmd.MarkFlagsMutuallyExclusive("abort", "detach")
	return cmd
}

func runUmount(ctx context.Context, a *app, mnt string, o umountOptions) error {
	if o.abort {
		return abortMount(a, mnt)
	}
	m, err := access.Resolve(ctx, mnt)
	switch {
	case exitcode.Has(err, exitcode.ServerGone) && !errors.Is(err, access.ErrSilent):
		if err := fs.Abort(mnt); err != nil {
			return err
		}
		a.note("unmounted %s; its server was dead", mnt)
		return nil
	case exitcode.Has(err, exitcode.NotFound):
		if store, ok := detachedStore(mnt); ok {
			return stillServed(ctx, store, mnt)
		}
	}
	if errors.Is(err, os.ErrPermission) && os.Geteuid() == 0 {
		return takeAway(a, mnt, o.detach)
	}
	if err != nil {
		return err
	}
	if m.Name != "" {
		return exitcode.WithHint(exitcode.Usage, errors.New("that lies on a mount"),
			"give its root: "+m.Root)
	}
	return endMount(ctx, a, m, o.detach)
}

// takeAway unmounts for root the mount of another user, whose server then ends by itself.
func takeAway(a *app, mnt string, detach bool) error {
	if err := fs.TakeAway(mnt, detach); err != nil {
		return err
	}
	a.note("unmounted %s, which was another user's", mnt)
	return nil
}

// endMount has the server end its mount, and waits for the server to end.
func endMount(ctx context.Context, a *app, m access.Mount, detach bool) error {
	server, err := m.Server(ctx)
	if err != nil {
		return err
	}
	st, err := server.Status(ctx)
	if err != nil {
		return err
	}
	ended := process.Watch(st.PID)
	defer ended.Close()
	err = server.Unmount(ctx, detach)
	if exitcode.Has(err, exitcode.Busy) {
		return exitcode.WithHint(exitcode.Busy, err,
			"stop what uses it; or take it away and serve what is open: thaw umount --detach "+m.Root+
				"; "+control.GiveUpHint(m.Root))
	}
	if err != nil {
		return err
	}
	patience := exitPatience
	if detach {
		patience = detachPatience
	}
	switch {
	case ended.Wait(patience):
		a.note("unmounted %s", m.Root)
	case detach:
		if now, err := server.Status(ctx); err == nil { // it may end just now
			st = now
		}
		a.note("detached %s; process %d serves what is in use%s", m.Root, st.PID,
			access.UsedBy(st.Users))
	default:
		a.note("unmounted %s; its server, process %d, has not ended yet", m.Root, st.PID)
	}
	return nil
}

// abortMount cuts a mount off from what uses it, also one that is out of the tree already.
func abortMount(a *app, mnt string) error {
	err := fs.Abort(mnt)
	if err == nil {
		a.note("cut off and unmounted %s", mnt)
		return nil
	}
	store, ok := detachedStore(mnt)
	if !ok || !errors.Is(err, fs.ErrNotMounted) {
		return err
	}
	// Its connection has no name any more, and ends with the process.
	d, _, _ := index.ServerOf(store)
	p := process.Watch(d.PID)
	defer p.Close()
	if now, ok, _ := index.ServerOf(store); !ok || now != d {
		return err
	}
	if minor, ok := fs.ConnectionOf(d.PID); ok {
		// Whoever else holds it must not go on with it.
		if aerr := fs.AbortConnection(minor); aerr == nil && p.Wait(exitPatience) {
			a.note("cut off what used %s, and ended its server", mnt)
			return nil
		}
	}
	if kerr := p.Signal(unix.SIGKILL); kerr != nil {
		return errors.Join(err, fmt.Errorf("end its server, process %d: %w", d.PID, kerr))
	}
	if !p.Wait(exitPatience) {
		return exitcode.Errorf(exitcode.Busy, "its server, process %d, was killed and has not ended yet",
			d.PID)
	}
	a.note("cut off what used %s, and ended its server", mnt)
	return nil
}

// stillServed is the error for a mount that is out of the tree already.
func stillServed(ctx context.Context, store, mnt string) error {
	st, served, err := access.ServerStatus(ctx, store)
	if err != nil {
		return fmt.Errorf("it is unmounted, but its server still runs: %w", err)
	}
	if !served {
		return access.NotOnMount(mnt) // it has just ended
	}
	return exitcode.WithHint(exitcode.Busy, fmt.Errorf(
		"it is unmounted, but process %d still serves what is in use%s", st.PID,
		access.UsedBy(st.Users)), "stop what uses it; "+control.GiveUpHint(mnt))
}

// detachedStore finds the store that was mounted on a path and is served still: the lock that its
// server holds says where. It sees servers of this user's, or as root all.
func detachedStore(mnt string) (string, bool) {
	at, _, err := fs.Locate(mnt)
	if err != nil {
		return "", false
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		file, err := os.Readlink(link)
		if err != nil || filepath.Base(file) != "lock" {
			continue
		}
		store := filepath.Dir(file)
		s, ok, err := index.ServerOf(store)
		if err == nil && ok && s.Mount == at.Path && strings.HasPrefix(link, fmt.Sprintf("/proc/%d/", s.PID)) {
			return store, true
		}
	}
	return "", false
}
