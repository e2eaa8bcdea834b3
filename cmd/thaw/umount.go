package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
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
		GroupID: groupMount,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := runUmount(cmd.Context(), a, args[0], o); err != nil {
				return fmt.Errorf("umount %s: %w", args[0], err)
			}
			return nil
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
		return a.abortMount(mnt)
	}
	ref, err := resolveMount(ctx, mnt)
	code, _, _ := exitcode.Of(err)
	switch {
	case code == exitcode.ServerGone && !errors.Is(err, errSilent):
		if err := fs.Abort(mnt); err != nil {
			return err
		}
		a.note("unmounted %s; its server was dead", mnt)
		return nil
	case code == exitcode.NotFound:
		if store, ok := detachedStore(mnt); ok {
			return stillServed(ctx, store, mnt)
		}
	}
	if err != nil {
		return err
	}
	if ref.Name != "" {
		return exitcode.WithHint(exitcode.Usage, errors.New("that lies on a mount"),
			"give its root: "+ref.Root)
	}
	return a.endMount(ctx, ref, o.detach)
}

// endMount has the server end its mount, and waits for the server to end.
func (a *app) endMount(ctx context.Context, ref mountRef, detach bool) error {
	client, err := ref.server(ctx)
	if err != nil {
		return err
	}
	var st serverStatus
	if err := client.Call(ctx, verbStatus, struct{}{}, &st); err != nil {
		return err
	}
	ended := watchProcess(st.PID)
	defer ended.Close()
	err = client.Call(ctx, verbUnmount, unmountRequest{Detach: detach}, nil)
	if code, _, _ := exitcode.Of(err); code == exitcode.Busy {
		return exitcode.WithHint(code, err, "stop what uses it; or take it away and serve what is open: "+
			"thaw umount --detach "+ref.Root+"; or cut it off: thaw umount --abort "+ref.Root)
	}
	if err != nil {
		return err
	}
	patience := exitPatience
	if detach {
		patience = detachPatience
	}
	switch {
	case ended.wait(patience):
		a.note("unmounted %s", ref.Root)
	case detach:
		_ = client.Call(ctx, verbStatus, struct{}{}, &st) // it may end just now
		a.note("detached %s; process %d serves what is in use%s", ref.Root, st.PID, by(st.Users))
	default:
		a.note("unmounted %s; its server, process %d, has not ended yet", ref.Root, st.PID)
	}
	return nil
}

// abortMount cuts a mount off from what uses it, also one that is out of the tree already.
func (a *app) abortMount(mnt string) error {
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
	p := watchProcess(d.PID)
	defer p.Close()
	if now, ok, _ := index.ServerOf(store); !ok || now != d {
		return err
	}
	if kerr := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); kerr != nil {
		return errors.Join(err, fmt.Errorf("end its server, process %d: %w", d.PID, kerr))
	}
	if !p.wait(exitPatience) {
		return exitcode.Errorf(exitcode.Busy, "its server, process %d, was killed and has not ended yet",
			d.PID)
	}
	a.note("cut off what used %s, and ended its server", mnt)
	return nil
}

// stillServed is the error for a mount that is out of the tree already.
func stillServed(ctx context.Context, store, mnt string) error {
	var st serverStatus
	c, err := storeServer(ctx, store)
	if c != nil {
		err = c.Call(ctx, verbStatus, struct{}{}, &st)
	}
	if err != nil {
		return fmt.Errorf("it is unmounted, but its server still runs: %w", err)
	}
	if c == nil {
		return notOnMount(mnt) // it has just ended
	}
	return exitcode.WithHint(exitcode.Busy, fmt.Errorf(
		"it is unmounted, but process %d still serves what is in use%s", st.PID, by(st.Users)),
		"stop what uses it; or cut it off: thaw umount --abort "+mnt)
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
		if err == nil && ok && s.Mount == at.Path && link == procFD(s.PID, filepath.Base(link)) {
			return store, true
		}
	}
	return "", false
}

func procFD(pid int, fd string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), "fd", fd)
}

// process is a process of somebody else's, watched until it ends.
type process struct{ pid, fd int }

// watchProcess watches a process by its number.
func watchProcess(pid int) process {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return process{pid, -1} // ended, or seen from another PID namespace under another number
	}
	return process{pid, fd}
}

// wait returns when the process has ended; false if it has not after so long.
func (p process) wait(patience time.Duration) bool {
	if p.fd < 0 {
		return true
	}
	for deadline := time.Now().Add(patience); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if n > 0 {
			return true
		}
	}
}

// Close ends the watch.
func (p process) Close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
}
