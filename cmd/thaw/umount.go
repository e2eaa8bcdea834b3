package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
)

// exitPatience is how long umount waits for the server to give the store back.
const exitPatience = 15 * time.Second

func newUmountCommand(a *app) *cobra.Command {
	var abort bool
	cmd := &cobra.Command{
		Use:     "umount MNT",
		Aliases: []string{"unmount"},
		Short:   "End a mount",
		Long: `Unmount a store and wait until its server has ended.

A mount in use is left alone. With --abort the connection to the kernel is cut first:
what still uses the mount gets I/O errors at once, nothing waits any more, also where
the server is dead or hangs. Machines that run from the mount lose the memory that they
have not touched yet.` + exitStatus(exitcode.NotFound, exitcode.Busy),
		Example: `  thaw umount /mnt/thaw`,
		GroupID: groupMount,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := runUmount(cmd.Context(), a, args[0], abort); err != nil {
				return fmt.Errorf("umount %s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&abort, "abort", false,
		"cut the connection first; users of the mount get I/O errors")
	return cmd
}

func runUmount(ctx context.Context, a *app, mnt string, abort bool) error {
	if abort {
		if err := fs.Abort(mnt); err != nil {
			return err
		}
		a.note("cut off and unmounted %s", mnt)
		return nil
	}
	ref, err := resolveMount(mnt)
	if code, _, _ := exitcode.Of(err); code == exitcode.ServerGone {
		if err := fs.Abort(mnt); err != nil {
			return err
		}
		a.note("unmounted %s; its server was dead", mnt)
		return nil
	}
	if err != nil {
		return err
	}
	if ref.Name != "" {
		return exitcode.WithHint(exitcode.Usage, errors.New("that lies on a mount"),
			"give its root: "+ref.Root)
	}
	client, err := ref.server(ctx)
	if err != nil {
		return err
	}
	st, err := call[serverStatus](ctx, client, verbStatus, struct{}{}, nil)
	if err != nil {
		return err
	}
	ended := watchProcess(st.PID)
	defer ended.Close()
	if err := client.Call(ctx, verbUnmount, struct{}{}, nil, nil); err != nil {
		if code, _, _ := exitcode.Of(err); code == exitcode.Busy {
			return exitcode.WithHint(code, fmt.Errorf("in use%s", usedBy(ref.Root)),
				"stop what uses it; or cut it off: thaw umount --abort "+ref.Root)
		}
		return err
	}
	if !ended.wait(exitPatience) {
		a.note("unmounted %s; its server, process %d, has not ended yet", mnt, st.PID)
		return nil
	}
	a.note("unmounted %s", mnt)
	return nil
}

// process is a process of somebody else's, watched until it ends.
type process struct{ fd int }

// watchProcess watches a process by its number.
func watchProcess(pid int) process {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return process{-1} // ended, or seen from another PID namespace under another number
	}
	return process{fd}
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

// lazyUnmount takes a mount out of the tree; what is open stays served.
func lazyUnmount(mnt string) error {
	err := unix.Unmount(mnt, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if out, err := exec.Command("fusermount3", "-u", "-z", "--", mnt).CombinedOutput(); err != nil {
		return fmt.Errorf("fusermount3: %s: %w", strings.TrimSpace(string(out)), err)
	}
	return nil
}
