package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/holder"
	"github.com/thawfs/thaw/cmd/thaw/internal/logs"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

type mountOptions struct {
	server.Options
	restore string
	repack  string
	learn   bool
	fill    fillFlag
	disk    diskFlag
	rights  rightsFlags
	daemon  bool
	logFile string
	// takeover is whether another server goes on when this one dies.
	takeover string
	patience time.Duration
}

func newMountCommand(a *app) *cobra.Command {
	var o mountOptions
	cmd := &cobra.Command{
		Use:   "mount STORE MNT",
		Short: "Serve a store's checkpoints as files",
		Long: `Serve the checkpoints of a store as files on MNT, an empty directory:

  MNT/NAME/memory           the image; opening it is the request to restore
  MNT/NAME/state, working-set, info.json, stats.json
  MNT/NAME/mem, ...         what the VMM that saved it calls its files: "thaw help formats"
  MNT/NAME/clones/ID/memory the same for one machine, can be opened read-write
  MNT/.thaw/                control socket, metrics

What opening "memory" does is the policy. "working-set" brings the pages of the working
set into the page cache in the order in which the machine will touch them, and the open
returns as soon as the rest, which follows while the machine runs, is sure to come before
it is touched: the working set has the times, and the server measures how fast it brings
pages. "working-set-full" returns when all of the set is there, "eager" when all pages
are; "lazy" brings none. --prefetch-cap-time and --prefetch-cap-bytes let the open return
earlier. See "thaw help restore".

With --fill the server brings the rest of memory, too, in the order in which it is stored,
while nothing is asked for and nothing is recorded, RATE bytes a second (` + size(defaultFill) + `).
MNT/NAME/stats.json says when all is there. Images that, with the others being filled, are
larger than half of the host's memory are left out, unless RATE is given.

With --learn each restore teaches which pages belong into the working set: see "thaw help
restore". "thaw ws show --history" prints what was learned. While a restore is watched,
until its machine has asked for nothing for 2 seconds and for 30 at most, nothing but the
set is brought ahead of it, and a hundredth of the set is left out.

With --repack=idle, which is the default, a process beside the server does what "thaw
repack" does when nothing was asked for half a minute after the mount was made and after
each change of the store. It gets what nobody else wants of processor and disk, waits
while machines read or are restored, gives way to commands that write to the store, and
ends with the server. It does nothing when less than a tenth of the disk, and less than 10
GiB, is free: packs that machines have open take their space until they are closed. By
default it leaves out a store of another user, for which it would write, and one on a
simulated disk; a store that can only be read is never repacked.

` + diskHelp + ` Reads of packs are simulated, also those that opening
an image needs. Reads of the index and all writes are not.

The server stays in the foreground and says on stderr when it is ready (and tells
systemd, Type=notify). With --daemon the command returns when the mount answers, and
the server goes on in the background, its messages in a log file, with times. "thaw help
operations" explains the log (--log-format).

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

A mount whose server was killed is taken away first, if it is at MNT.

As root it uses mount(2), otherwise fusermount3.

` + rightsHelp +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.Version, exitcode.Mount,
				exitcode.MountPoint, exitcode.Unsupported),
		Example: `  thaw mount /srv/store /mnt/thaw
  thaw mount /srv/store /mnt/thaw --daemon --restore=lazy`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeDirs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runMount(cmd, a, args[0], args[1], o), "mount %s on %s", args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.restore, "restore", "working-set",
		"what opening memory brings: working-set, working-set-full, eager or lazy")
	f.DurationVar(&o.FS.CapTime, "prefetch-cap-time", 0,
		"longest time that an open waits for its prefetch (0: as long as it takes)")
	f.Var((*sizeFlag)(&o.FS.CapBytes), "prefetch-cap-bytes",
		"most that an open brings before it returns (0: all)")
	f.Var(&o.fill, "fill", "bring the rest of memory while nothing is asked for, at this `rate` a second")
	f.Lookup("fill").NoOptDefVal = fillByDefault
	f.DurationVar(&o.FS.RecordWindow, "record-window", 10*time.Second,
		"how long reads are recorded after the first open of a cold image")
	o.rights.add(cmd)
	f.BoolVar(&o.FS.ReadOnly, "read-only", false,
		"let nobody open a file for writing, not that of a clone either (QEMU before 8.2 needs that)")
	f.BoolVar(&o.daemon, "daemon", false, "return when the mount answers, serve in the background")
	f.StringVar(&o.logFile, "log-file", "",
		"where a background server writes its messages (default STORE/server.log)")
	f.StringVar(&o.takeover, "takeover", "off",
		"experimental: with --daemon, whether another server goes on if this one dies: auto (if one can) or off")
	if err := f.MarkHidden("takeover"); err != nil {
		panic(err) // there is no such flag
	}
	f.DurationVar(&o.patience, "takeover-patience", 0,
		"how long there may be no server until the mount is given up (default 10s)")
	if err := f.MarkHidden("takeover-patience"); err != nil {
		panic(err) // there is no such flag
	}
	f.StringVar(&o.MetricsListen, "metrics-listen", "",
		"serve /metrics for Prometheus over HTTP on this address, such as 127.0.0.1:9411")
	f.StringVar(&o.DebugListen, "debug-listen", "",
		"serve /metrics and profiles (/debug/pprof) over HTTP on this address")
	f.BoolVar(&o.learn, "learn", false, "learn working sets from restores")
	f.DurationVar(&o.FS.LearnQuiet, "learn-quiet", 0, "what ends the watching of a restore (default 2s)")
	if err := f.MarkHidden("learn-quiet"); err != nil {
		panic(err) // there is no such flag
	}
	f.StringVar(&o.repack, "repack", "",
		"repack the store while nothing is asked for: idle or off (default idle)")
	f.DurationVar(&o.Repack.After, "repack-after", 30*time.Second,
		"how long nothing must have been asked for before")
	complete(cmd, "restore", "working-set", "working-set-full", "eager", "lazy")
	complete(cmd, "repack", "idle", "off")
	if err := f.MarkHidden("repack-after"); err != nil {
		panic(err) // there is no such flag
	}
	f.BoolVar(&o.FS.NoPush, "no-push", false, "push nothing beside or ahead of READs")
	if err := f.MarkHidden("no-push"); err != nil {
		panic(err) // there is no such flag
	}
	o.disk.add(f)
	complete(cmd, "disk", "native", "hdd", "nfs", "s3")
	return cmd
}

func runMount(cmd *cobra.Command, a *app, store, mnt string, o mountOptions) (err error) {
	if store == "" || mnt == "" {
		return exitcode.Errorf(exitcode.Usage, "the name of the store or of the mount point is empty")
	}
	if o.FS.Policy, err = fs.ParsePolicy(o.restore); err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	if o.FS.Rights, err = o.rights.rights(); err != nil {
		return err
	}
	if err := o.setRepack(); err != nil {
		return err
	}
	if o.Disk, err = o.disk.spec(); err != nil {
		return err
	}
	if o.Store, err = filepath.Abs(store); err != nil {
		return err
	}
	if o.Mount, err = filepath.Abs(mnt); err != nil {
		return err
	}
	o.FS.Fill, o.FS.FillLarge, o.FS.Filled = o.fill.rate, o.fill.large, a.filled
	o.FS.Lessons, o.FS.Asked = lessons{o.Store}, lessons{o.Store}
	if o.learn {
		o.FS.Learned = lessons{o.Store}
	}
	if err := o.setTakeover(); err != nil {
		return err
	}
	if done, err := takeOver(cmd.Context(), a, &o); done || err != nil {
		return err
	}
	if err := access.Answering(cmd.Context(), o.Store); err != nil {
		return err
	}
	if err := clearDead(cmd.Context(), a, o.Options); err != nil {
		return err
	}
	as, other, err := o.rights.serveAs()
	if err != nil {
		return err
	}
	if other { // its mount belongs to a user, for whom nobody can hold it
		o.Alone = true
	}
	if o.daemon {
		return mountDaemon(cmd, a, o, as, other)
	}
	defer a.lasting()()
	if !other {
		return serve(cmd.Context(), a, o.Options)
	}
	return serveAsUser(cmd.Context(), a, o.Options, as)
}

// clearDead takes the mount away that a server which died has left on a mount point. Its users have errors
// already, and none of them can get a server again.
//
// It holds the lock of the store's server meanwhile, or was given it: another command that mounts the store
// here may have taken the dead mount away just now, and what it has mounted must not be cut off.
func clearDead(ctx context.Context, a *app, o server.Options) error {
	store, mnt := o.Store, o.Mount
	if !index.IsStore(store) || !deadAt(ctx, mnt) {
		return nil // what else is wrong shows when it is mounted
	}
	if !o.Locked() {
		switch lock, err := index.LockServer(store, mnt); {
		case errors.Is(err, index.ErrLocked):
			return nil
		case err == nil:
			defer lock.Close()
			if !deadAt(ctx, mnt) {
				return nil
			}
		}
	}
	if err := fs.Abort(mnt); err != nil {
		return fmt.Errorf("take away the mount whose server is dead: %w", err)
	}
	a.note("a mount whose server was dead is taken away from %s", mnt)
	return nil
}

// deadAt says whether a mount whose server is dead is right at a mount point.
func deadAt(ctx context.Context, mnt string) bool {
	_, err := access.Resolve(ctx, mnt)
	if !exitcode.Has(err, exitcode.ServerGone) || errors.Is(err, access.ErrSilent) {
		return false
	}
	at, on, err := fs.Locate(mnt)
	return err == nil && on && at.In == "."
}

// setRepack takes the flag --repack.
func (o *mountOptions) setRepack() error {
	switch o.repack {
	case "", "idle":
		o.Repack.Idle, o.Repack.Always = true, o.repack != ""
	case "off":
	default:
		return exitcode.Errorf(exitcode.Usage, "--repack=%s: want idle or off", o.repack)
	}
	return nil
}

// serveAsUser is serve by a process that has become a user's, with no privilege.
func serveAsUser(ctx context.Context, a *app, o server.Options, as process.User) error {
	m, err := unprivileged(a, o.Mount, as, fs.Mounting{
		Shared: o.FS.Rights.Shared(), ReadOnly: o.FS.ReadOnly, Source: o.Store,
	})
	if err != nil {
		process.OpenReady().Tell(err, classify)
		return err
	}
	o.FS.Mounter = m.Mount
	return errors.Join(serve(ctx, a, o), m.Close())
}

// serve mounts a store, says so and serves it until the mount ends.
func serve(ctx context.Context, a *app, o server.Options) error {
	o.Version, o.Log, o.Note, o.Classify = buildVersion().Version, a.log, a.note, classify
	parent := process.OpenReady()
	var s *server.Server
	var err error
	if o.FS.Mounter == nil {
		err = usableHost()
	}
	if err == nil {
		s, err = server.Start(ctx, o)
	}
	if err == nil {
		a.note("thaw: ready: %s is served on %s (restore=%s, disk=%s, pid %d)", o.Store, s.Mount,
			o.FS.Policy, o.Disk, os.Getpid())
	}
	parent.Tell(err, classify)
	if err != nil {
		return err
	}
	tell := process.Notify
	if o.Holder != nil {
		tell = o.Holder.Tell
	}
	if err := tell("READY=1"); err != nil {
		a.log.Warn("tell systemd", "err", err)
	}
	return s.Run(ctx)
}

// mountDaemon starts the server in the background and waits until the mount answers.
func mountDaemon(cmd *cobra.Command, a *app, o mountOptions, as process.User, other bool) error {
	// A directory that is not a store must not get a log.
	if _, err := os.Stat(filepath.Join(o.Store, storeFile)); errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("open store: %w", err)
	} else if err != nil {
		return fmt.Errorf("%s: %w", o.Store, index.ErrNotStore)
	}
	open := server.OpenLog
	if other {
		open = server.LogOf(as)
	}
	log, err := open(o.logFile, o.Store, o.Mount)
	if err != nil {
		return fmt.Errorf("log file of the server: %w", err)
	}
	defer log.Close()
	args := []string{"mount", o.Store, o.Mount, fmt.Sprintf("--verbose=%v", a.verbose),
		"--log-format=" + string(cmp.Or(a.logFormat, logs.Text))}
	if !o.Alone && os.Geteuid() == 0 { // fusermount3 gives /dev/fuse to nobody but its server
		args = append([]string{holder.Command, o.patience.String()}, args...)
	}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "daemon" && f.Name != "log-file" {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	pid, err := process.StartDaemon(cmd.Context(), args, log)
	if err != nil {
		return err
	}
	// The server says that it is ready; whether the kernel agrees, another process must ask.
	if _, err := access.Bounded(cmd.Context(), o.Mount, func() (os.FileInfo, error) {
		return os.Stat(filepath.Join(o.Mount, access.Dot))
	}); err != nil && !(other && errors.Is(err, os.ErrPermission)) { // which lets in only its user
		return exitcode.WithHint(exitcode.Mount, fmt.Errorf("the mount does not answer: %w", err),
			"the server's log: "+log.Name())
	}
	if why := access.Unwritable(o.Store); why != "" {
		a.note("store %s can only be read: %s", o.Store, why)
	}
	if a.json {
		return a.printJSON(control.Status{PID: pid, Version: buildVersion().Version, Store: o.Store,
			Mount: o.Mount, Policy: o.restore})
	}
	a.note("%s is served on %s by process %d, log in %s", o.Store, o.Mount, pid, log.Name())
	return nil
}

// storeFile is what every store has in its directory; package index describes the format.
const storeFile = "thaw-store.json"

// usableHost says what the host lacks for a mount.
func usableHost() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return exitcode.WithHint(exitcode.Unsupported, fmt.Errorf("this host cannot mount: %w", err),
			`load the module ("modprobe fuse"), or give the container /dev/fuse; "thaw doctor" tells more`)
	}
	return f.Close()
}
