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
)

type demoOptions struct {
	memory sizeFlag
	guest  string
	args   []string
	warm   time.Duration
	window time.Duration
	keep   string
	figure string
}

func newDemoCommand(a *app) *cobra.Command {
	o := demoOptions{memory: 1 << 30}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole story on this machine, in under a minute",
		Long: `Boot a machine with 1 GiB of memory that does transactions over a skewed heap of 64 MiB,
save it, put it into a store, mount the store, and restore the machine by three methods,
each time from a cold page cache:

  lazy    nothing is brought before it starts; every page comes when it is touched.
          What it touches in twice the window becomes the checkpoint's working set:
          a lazy machine takes that long to get as far as one that has its pages
  eager   all of its memory is brought before it starts
  trace   its working set is brought before it starts

Then print what was prefetched, how much of that the machine used (skipped: a fetch it
was spared) and what it had to wait for (lazy), how long the restore took, when it was
responsive (TTR), how it went on with its work, and where the figure is.

Every page that the machine reads is compared with what it must be. Everything that
the demo makes is removed again, but for the figure; with --keep DIR it stays.

It needs /dev/kvm and /dev/fuse, and 2 GiB of disk in $TMPDIR. With --json: the table, the
stalls and the work done as data.` +
			exitStatus(exitcode.NoSpace, exitcode.Unsupported, exitcode.GuestFailed,
				exitcode.Interrupted),
		Example: `  thaw demo
  thaw demo --json --keep /var/tmp/demo`,
		GroupID: groupStart,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := runDemo(cmd.Context(), a, o); err != nil {
				return fmt.Errorf("demo: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.Var(&o.memory, "memory", "memory of the machine")
	f.StringVar(&o.guest, "guest", "heap", `guest program: heap, stream, idle or random:PCT`)
	f.StringArrayVar(&o.args, "arg", nil,
		`option NAME=VALUE of the guest program (default for heap: set=64MiB); may be repeated`)
	f.DurationVar(&o.warm, "warm", time.Second, "how long the machine works before it is saved")
	f.DurationVar(&o.window, "window", 5*time.Second,
		"how long each restored machine works; the counts are over this window")
	f.StringVar(&o.keep, "keep", "", "keep checkpoint, store and figure in this directory")
	f.StringVar(&o.figure, "figure", "",
		"file for the figure, SVG (default thaw-demo.svg in $TMPDIR or in the --keep directory)")
	return cmd
}

// demo is one run of the story.
type demo struct {
	a     *app
	o     demoOptions
	start time.Time

	dir, checkpoint, store, mnt, figure string

	children []*child // started and not yet known to have ended, oldest first
	mounted  bool
}

// demoName is the checkpoint's name in the store.
const demoName = "demo"

func runDemo(ctx context.Context, a *app, o demoOptions) (err error) {
	if o.window < time.Second || o.warm < 0 {
		return exitcode.Errorf(exitcode.Usage,
			"--window must be at least 1s, --warm must not be negative")
	}
	if err := checkMemory(int64(o.memory)); err != nil {
		return err
	}
	if err := errors.Join(usableKVM(), usableHost()); err != nil {
		return err
	}
	if len(o.args) == 0 && o.guest == "heap" {
		// A set that a lazy restore can touch within the window, so that it is recorded whole.
		o.args = []string{"set=64MiB"}
	}
	d := &demo{a: a, o: o, start: time.Now()}
	if err := d.makeDirs(); err != nil {
		return err
	}
	defer func() {
		if cerr := d.cleanUp(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
		}
	}()
	if err := d.save(ctx); err != nil {
		return err
	}
	if err := d.importCheckpoint(ctx); err != nil {
		return err
	}
	var results []demoResult
	for _, m := range demoMethods() {
		r, err := d.restore(ctx, m)
		if err != nil {
			return fmt.Errorf("%s restore: %w", m.name, err)
		}
		results = append(results, r)
	}
	return d.report(results)
}

// usableKVM says what the host lacks for a machine.
func usableKVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return exitcode.WithHint(exitcode.Unsupported, fmt.Errorf("this host cannot run machines: %w",
			err),
			`load the module kvm_intel or kvm_amd, get into the group "kvm", or allow nested `+
				`virtualisation; "thaw doctor" tells more`)
	}
	return f.Close()
}

// makeDirs makes the directory that everything lies in.
func (d *demo) makeDirs() (err error) {
	if d.o.keep != "" {
		if d.dir, err = filepath.Abs(d.o.keep); err != nil {
			return err
		}
		if err := os.Mkdir(d.dir, 0o700); err != nil {
			return exitcode.With(exitcode.Exists, fmt.Errorf("--keep wants a new directory: %w", err))
		}
	} else if d.dir, err = os.MkdirTemp("", "thaw-demo-"); err != nil {
		return err
	}
	d.figure = d.o.figure
	switch {
	case d.figure != "":
	case d.o.keep != "":
		d.figure = filepath.Join(d.dir, "thaw-demo.svg")
	default:
		d.figure = filepath.Join(os.TempDir(), "thaw-demo.svg")
	}
	if d.figure, err = filepath.Abs(d.figure); err != nil {
		return err
	}
	d.checkpoint = filepath.Join(d.dir, "checkpoint")
	d.store = filepath.Join(d.dir, "store")
	d.mnt = filepath.Join(d.dir, "mnt")
	return os.Mkdir(d.mnt, 0o700)
}

// recordWindow is how long the machine whose reads become the working set runs. The record must
// reach as far into the machine's work as the restores that it is used for, and they are faster.
func (d *demo) recordWindow() time.Duration { return 2 * d.o.window }

// stage tells what happens now, with the seconds since the start.
func (d *demo) stage(format string, args ...any) {
	d.a.note("[%5.1f s] %s", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

// cleanUp ends what still runs, takes the mount away and removes the files.
func (d *demo) cleanUp() error {
	var errs []error
	// Machines first, youngest first: a server does not end under them.
	for i := len(d.children) - 1; i >= 0; i-- {
		errs = append(errs, d.children[i].stop())
	}
	if err := fs.Abort(d.mnt); err != nil && !errors.Is(err, fs.ErrNotMounted) {
		errs = append(errs, err) // it is there still where its server had to be killed
	}
	if d.o.keep == "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

// importCheckpoint puts the saved machine into a new store, in this process.
func (d *demo) importCheckpoint(ctx context.Context) error {
	d.stage("importing %s of memory", size(int64(d.o.memory)))
	var reply importReply
	err := d.a.withStoreOptions(ctx, d.store, index.OpenOptions{Create: true},
		func(s storeAPI) (err error) {
			p := d.a.progress()
			defer p.done()
			reply, err = s.Import(ctx, importRequest{Path: d.checkpoint, Name: demoName}, p.set)
			return err
		})
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	st := reply.Stats
	d.stage("imported in %.1f s (%s/s): %s stored, %.0f %% of the memory", st.Seconds,
		size(int64(float64(st.MemoryBytes)/max(st.Seconds, 1e-9))), size(st.StoredBytes),
		100*float64(st.StoredBytes)/float64(st.MemoryBytes))
	if d.o.keep != "" {
		return nil
	}
	return os.RemoveAll(d.checkpoint) // the store has it now; the disk may be small
}

// demoMethod is one way to restore.
type demoMethod struct {
	name   string // as in the table
	row    int    // in the table
	policy fs.Policy
	record bool // afterwards, what it read becomes the working set
	says   string
}

func demoMethods() []demoMethod {
	return []demoMethod{
		{"lazy", 1, fs.PolicyLazy, true, "restoring lazily: pages come when they are touched"},
		{"eager", 0, fs.PolicyEager, false, "restoring eagerly: all pages first"},
		{"trace", 2, fs.PolicyWorkingSet, false, "restoring by the working set that was recorded"},
	}
}
