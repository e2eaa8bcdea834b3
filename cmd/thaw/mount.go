package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob/disk"
)

type mountOptions struct {
	restore      string
	capTime      time.Duration
	capBytes     sizeFlag
	recordWindow time.Duration
	allowOther   bool
	daemon       bool
	logFile      string
	debugListen  string
	noPush       bool
	disk         diskFlag

	policy   fs.Policy // restore, parsed
	diskSpec disk.Spec // disk, parsed
}

func newMountCommand(a *app) *cobra.Command {
	var o mountOptions
	cmd := &cobra.Command{
		Use:   "mount STORE MNT",
		Short: "Serve a store's checkpoints as files",
		Long: `Serve the checkpoints of a store as files on MNT, an empty directory:

  MNT/NAME/memory           the image; opening it is the request to restore
  MNT/NAME/state, working-set, info.json, stats.json
  MNT/NAME/clones/ID/memory the same for one machine, can be opened read-write
  MNT/.thaw/                control socket, metrics

What opening "memory" does is the policy: "working-set" brings the pages of the
working set into the page cache before the open returns, "eager" all pages, "lazy"
none. --prefetch-cap-time and --prefetch-cap-bytes let the open return earlier; the
rest follows while the machine runs.

` + diskHelp + ` Reads of packs are simulated, also those that opening
an image needs. Reads of the index and all writes are not.

The server stays in the foreground and says on stderr when it is ready (and tells
systemd, Type=notify). With --daemon the command returns when the mount answers, and
the server goes on in the background, its messages in a log file.

The server only reads the store. Commands may change the store meanwhile, and the
mount shows the changes. A store that cannot be written (a read-only file system,
another user's store) is served as well; the control socket and the log are then in a
private directory below $XDG_RUNTIME_DIR or $TMPDIR.

SIGTERM or SIGINT unmounts and ends it. If something still uses the mount, it waits a
little, then detaches the mount and goes on until all open files are closed. A second
signal ends it at once, and processes that use the mount get I/O errors. Because
machines run from the mount, SIGHUP, SIGPIPE, SIGQUIT, SIGABRT and the like are ignored,
and so are errors when the log is written. SIGKILL ends it at once, and so do the signals
of faults: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGSTKFLT.

As root it uses mount(2), otherwise fusermount3.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.Version, exitcode.Mount,
				exitcode.MountPoint, exitcode.Unsupported),
		Example: `  thaw mount /srv/store /mnt/thaw
  thaw mount /srv/store /mnt/thaw --daemon --restore=lazy`,
		GroupID: groupMount,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMount(cmd.Context(), a, args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.restore, "restore", "working-set",
		"what opening memory brings: working-set, eager or lazy")
	f.DurationVar(&o.capTime, "prefetch-cap-time", 0,
		"longest time that an open waits for its prefetch (0: as long as it takes)")
	f.Var(&o.capBytes, "prefetch-cap-bytes", "most that an open brings before it returns (0: all)")
	f.DurationVar(&o.recordWindow, "record-window", 10*time.Second,
		"how long reads are recorded after the first open of a cold image")
	f.BoolVar(&o.allowOther, "allow-other", false, "let other users use the mount")
	f.BoolVar(&o.daemon, "daemon", false, "return when the mount answers, serve in the background")
	f.StringVar(&o.logFile, "log-file", "",
		"where a background server writes its messages (default STORE/server.log)")
	f.StringVar(&o.debugListen, "debug-listen", "",
		"serve /metrics and profiles (/debug/pprof) over HTTP on this address, such as 127.0.0.1:9411")
	f.BoolVar(&o.noPush, "no-push", false, "push nothing beside or ahead of READs")
	if err := f.MarkHidden("no-push"); err != nil {
		panic(err) // there is no such flag
	}
	o.disk.add(f)
	return cmd
}

func runMount(ctx context.Context, a *app, store, mnt string, o mountOptions) error {
	err := mountAndServe(ctx, a, store, mnt, o)
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", store, mnt, err)
	}
	return nil
}

func mountAndServe(ctx context.Context, a *app, store, mnt string, o mountOptions) (err error) {
	if o.policy, err = fs.ParsePolicy(o.restore); err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	if o.diskSpec, err = o.disk.spec(); err != nil {
		return err
	}
	if store, err = filepath.Abs(store); err != nil {
		return err
	}
	if mnt, err = filepath.Abs(mnt); err != nil {
		return err
	}
	if err := answering(ctx, store); err != nil {
		return err
	}
	if o.daemon {
		return mountDaemon(ctx, a, store, mnt, o)
	}
	pipe := readyPipe()
	ready := false
	defer func() {
		if !ready {
			tellReady(pipe, err)
		}
	}()
	if err := usableHost(); err != nil {
		return err
	}
	defer a.lasting()()
	s, err := startServer(ctx, a, store, mnt, o)
	if err != nil {
		return err
	}
	ready = true
	a.note("thaw: ready: %s is served on %s (restore=%s, disk=%s, pid %d)", store, mnt, o.policy,
		o.diskSpec, os.Getpid())
	tellReady(pipe, nil)
	if err := sdNotify("READY=1"); err != nil {
		a.log.Warn("tell systemd", "err", err)
	}
	return s.run(ctx)
}

// mountDaemon starts the server in the background and waits until the mount answers.
func mountDaemon(ctx context.Context, a *app, store, mnt string, o mountOptions) error {
	// A directory that is not a store must not get a log.
	if _, err := os.Stat(filepath.Join(store, storeFile)); errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("open store: %w", err)
	} else if err != nil {
		return notStore(store)
	}
	log, err := openLog(o.logFile, store, mnt)
	if err != nil {
		return fmt.Errorf("log file of the server: %w", err)
	}
	defer log.Close()
	args := []string{"mount", store, mnt,
		"--restore=" + o.restore,
		"--prefetch-cap-time=" + o.capTime.String(),
		fmt.Sprintf("--prefetch-cap-bytes=%d", int64(o.capBytes)),
		"--record-window=" + o.recordWindow.String(),
		"--debug-listen=" + o.debugListen,
		"--disk=" + o.disk.name,
		fmt.Sprintf("--allow-other=%v", o.allowOther),
		fmt.Sprintf("--verbose=%v", a.verbose),
	}
	pid, err := startDaemon(ctx, args, log)
	if err != nil {
		return err
	}
	// The server says that it is ready; whether the kernel agrees, another process must ask.
	if _, err := bounded(ctx, func() (os.FileInfo, error) {
		return os.Stat(filepath.Join(mnt, dot))
	}); err != nil {
		return exitcode.WithHint(exitcode.Mount, fmt.Errorf("the mount does not answer: %w", err),
			"the server's log: "+log.Name())
	}
	if why := unwritable(store); why != "" {
		a.note("store %s can only be read: %s", store, why)
	}
	if a.json {
		return a.printJSON(serverStatus{PID: pid, Version: buildVersion().Version, Store: store,
			Mount: mnt, Policy: o.restore})
	}
	a.note("%s is served on %s by process %d, log in %s", store, mnt, pid, log.Name())
	return nil
}

// openLog opens the log of a background server: the file that was asked for, or one in the store, or,
// where that cannot be, one in a directory of the server's own.
func openLog(name, store, mnt string) (*os.File, error) {
	const flags = os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if name != "" {
		return os.OpenFile(name, flags, 0o600)
	}
	f, err := os.OpenFile(filepath.Join(store, "server.log"), flags, 0o600)
	if err == nil {
		return f, nil
	}
	dir, derr := privateDir(mnt)
	if derr != nil {
		return nil, errors.Join(err, derr)
	}
	return os.OpenFile(filepath.Join(dir, "server.log"), flags, 0o600)
}

// storeFile is what every store has in its directory; package index describes the format.
const storeFile = "thaw-store.json"

// notStore is the error for a directory without it, as package index has it.
func notStore(dir string) error { return fmt.Errorf("%s: %w", dir, index.ErrNotStore) }

// usableHost says what the host lacks for a mount.
func usableHost() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return exitcode.WithHint(exitcode.Unsupported, fmt.Errorf("this host cannot mount: %w", err),
			`load the module ("modprobe fuse"), or give the container /dev/fuse; "thaw doctor" tells more`)
	}
	return f.Close()
}
