package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/cmd/thaw/internal/uffd"
	"github.com/thawfs/thaw/index"
)

type uffdOptions struct {
	socket  string
	restore string
	timeout time.Duration
}

func newUffdCommand(a *app) *cobra.Command {
	var o uffdOptions
	cmd := &cobra.Command{
		Use:   "uffd {STORE | MNT} NAME --socket PATH",
		Short: "Serve a checkpoint's memory to a VMM through userfaultfd",
		Long: `Serve the memory of a checkpoint to one VMM that takes its pages through userfaultfd and
not from a file: Firecracker, with "backend_type": "Uffd" and "backend_path": PATH. For
all others, and for Firecracker's "File", a mount is better: machines on a mount share
the memory of their clean pages, here each has all of its own. Use it for what only
userfaultfd has: pages of 2 MiB.

It listens on PATH, says on stderr when it is ready (and tells systemd, Type=notify), and
serves the first VM that connects, in the foreground, until that ends; then it prints
what it has done. Another VM needs another call and another socket. A socket that a dead
process has left at PATH is replaced. Only the same user can connect.

What comes before it is touched is --restore: the "working-set", in the order in which it
was touched, "eager" all of memory, "lazy" nothing. Pages that the VM waits for always go
first, and the pages that are stored beside them follow. After "eager", when all is there,
the VM needs nobody any more, and the command ends; the VM goes on.

The VM waits for each page until it comes. So it is killed, rather than left to hang: if
its handshake is refused; if a page that it needs cannot be read; if this command gets
SIGTERM or SIGINT; and if this process dies, for which a second process watches. A process
that connects and hands over no userfaultfd is left alone.

Memory that the VM gives back (a balloon, MADV_DONTNEED) is zeros when it is used again.
See "thaw help uffd".` +
			exitStatus(exitcode.NotStore, exitcode.NotFound, exitcode.Exists, exitcode.ServerGone,
				exitcode.MemoryLost, exitcode.Handshake, exitcode.Interrupted),
		Example: `  thaw uffd /srv/store web-1 --socket /run/web-1.uffd
  thaw uffd /mnt/thaw web-1 --socket /run/web-1.uffd --restore=eager`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runUffd(cmd.Context(), a, args, o), "serve memory of %s", strings.Join(args, " "))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "the Unix socket that the VMM connects to")
	f.StringVar(&o.restore, "restore", string(uffd.WorkingSet),
		"what comes before it is touched: working-set, eager or lazy")
	f.DurationVar(&o.timeout, "timeout", 0, "how long a VM may take to connect (0: as long as it likes)")
	complete(cmd, "restore", string(uffd.WorkingSet), string(uffd.Eager), string(uffd.Lazy))
	return cmd
}

func runUffd(ctx context.Context, a *app, args []string, o uffdOptions) (err error) {
	if o.socket == "" {
		return exitcode.Errorf(exitcode.Usage, "give --socket, the path that the VMM will connect to")
	}
	policy := uffd.Policy(o.restore)
	if policy != uffd.WorkingSet && policy != uffd.Eager && policy != uffd.Lazy {
		return exitcode.Errorf(exitcode.Usage, "--restore=%s: give working-set, eager or lazy", o.restore)
	}
	if o.timeout < 0 {
		return exitcode.Errorf(exitcode.Usage, "--timeout %v", o.timeout)
	}
	socket, err := filepath.Abs(o.socket)
	if err != nil {
		return err
	}
	p, err := access.Find(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	name, err := p.One()
	if err != nil {
		return err
	}
	src, err := openPages(ctx, a, p, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	defer a.lasting()()
	report, err := uffd.Serve(ctx, uffd.Options{
		Socket: socket, Source: src, Policy: policy, Patience: o.timeout, Log: a.log, Note: a.note,
		Guard: func() *exec.Cmd {
			cmd := process.Self(uffd.GuardCommand)
			cmd.Stderr = os.Stderr
			return cmd
		},
		Ready: func() {
			a.note("thaw: ready: the memory of %s is served on %s (restore=%s, pid %d)", name, socket, policy,
				os.Getpid())
			if err := process.Notify("READY=1"); err != nil {
				a.log.Warn("tell systemd", "err", err)
			}
		},
	})
	if report != nil {
		err = errors.Join(err, a.printUffd(report))
	}
	return err
}

// openPages opens a checkpoint of a store, or of a mount.
func openPages(ctx context.Context, a *app, p access.Place, name string) (uffd.Source, error) {
	if p.Mount != "" {
		m, _, err := access.Checkpoint(ctx, filepath.Join(p.Mount, name))
		if err != nil {
			return nil, err
		}
		return uffd.OpenDirectory(filepath.Join(m.Root, m.Name), func(err error) {
			a.log.Warn("the working set is not known: each page comes when it is touched", "err", err)
		})
	}
	if err := access.Answering(ctx, p.Store); err != nil {
		return nil, err
	}
	store, err := index.Open(ctx, p.Store, index.OpenOptions{
		ReadOnly: true, Log: a.log, Keys: a.stores.Keys, MustSeal: a.stores.MustSeal,
	})
	if err != nil {
		return nil, err
	}
	src, err := uffd.OpenStore(ctx, store, name)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return src, nil
}

// printUffd prints what became of a VM.
func (a *app) printUffd(r *uffd.Report) error {
	if a.json {
		return a.printJSON(r)
	}
	var rows lines
	rows.add("VM", "process %d, %s after %.3f s", r.PID, r.End, r.Seconds)
	if r.SetSeconds > 0 {
		rows.add("working set", "%s pages in %.3f s", count(r.SetPages), r.SetSeconds)
	}
	rows.add("faults", "%s, of them %s on pages that had been there; p50 %.1f us, p99 %.1f us", count(r.Faults),
		count(r.AgainFaults), r.FaultP50*1e6, r.FaultP99*1e6)
	rows.add("brought along", "%s pages, and %s of zeros", count(r.NearPages), count(r.ZeroPages))
	rows.add("given back", "%s pages", count(r.Removed))
	a.printLines(15, rows)
	return nil
}

// newGuardCommand is the process that ends a VM when the one that serves its memory dies, and hidden.
func newGuardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    uffd.GuardCommand + " [accept]",
		Hidden: true,
		Args:   cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_ = process.Lasting() // that it is not spared when memory runs out ends no VM by itself
			return exitcode.With(exitcode.MemoryLost, uffd.GuardMain(len(args) > 0))
		},
	}
}
