package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/wss"
)

// compareOptions are what a comparison is made of. `thaw demo` is one with other defaults.
type compareOptions struct {
	guest      labGuest
	checkpoint string // a directory to compare restores of; "": the guest is saved for it

	methods []string
	repeat  int
	disk    diskFlag
	window  time.Duration
	seed    uint64
	drop    float64 // percent of each set to lose, for the sensitivity to misses

	keep, figure, html string
}

func newCompareCommand(a *app) *cobra.Command {
	o := compareOptions{guest: labGuest{program: "heap", memory: 1 << 30}}
	cmd := &cobra.Command{
		Use:   "compare [CHECKPOINT]",
		Short: "Restore one checkpoint by every method and compare",
		Long: `Restore one checkpoint by every method, each time from cold, and print the table of the
paper: what was prefetched, how much of that the machine used (skipped: a fetch it was
spared), what it had to wait for (lazy), recall and precision, when it ran (restore),
when it was responsive (TTR at 70 and 80 %), and when it did its work at its old pace
again (recovery).

CHECKPOINT is a checkpoint directory of "thaw vm checkpoint", for access and trace with
a working set of that source (--scan, --trace). Without it a guest is booted and saved.

  eager      all of memory is brought before it starts
  lazy       nothing is; every page comes when it is touched
  access     its working set by the access bits scanned before the checkpoint is
  trace      its working set by the accesses traced after the checkpoint is
  union      both are
  raw-eager  the plain image is read before it starts, without thaw
  raw-lazy   the plain image is mapped, without thaw; the kernel reads around faults

` + diskHelp + `
The raw methods are on the same device. With --repeat the methods take turns in random
order and the table has medians, with the least and the greatest.

The figure shows the fraction of time spent fetching memory over time, a panel a method.
--html writes a page with everything in it that opens without a network.` +
			exitStatus(exitcode.NotFound, exitcode.NoSpace, exitcode.Unsupported,
				exitcode.GuestFailed, exitcode.WorkingSet, exitcode.Interrupted),
		Example: `  thaw compare --guest stream --disk hdd --window 30s --html stream.html
  thaw compare /var/tmp/saved --methods lazy,trace --repeat 5 --json`,
		GroupID: groupStart,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.checkpoint = args[0]
			}
			if err := runCompare(cmd.Context(), a, o); err != nil {
				return fmt.Errorf("compare: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.guest.program, "guest", o.guest.program,
		"guest program to boot and save: heap, stream, idle or random:PCT")
	f.StringArrayVar(&o.guest.args, "arg", nil, "option NAME=VALUE of the guest program; may be repeated")
	f.Var(&o.guest.memory, "memory", "memory of the machine")
	f.DurationVar(&o.guest.warm, "warm", 2*time.Second, "how long the machine works before it is saved")
	f.DurationVar(&o.guest.scan, "scan", 10*time.Second,
		"scan access bits so long before the checkpoint")
	f.DurationVar(&o.guest.trace, "trace", 10*time.Second,
		"trace accesses so long after the checkpoint")
	f.StringSliceVar(&o.methods, "methods", []string{"eager", "lazy", "access", "trace", "union"},
		"methods to compare: "+strings.Join(methodNames(), ", "))
	f.IntVar(&o.repeat, "repeat", 1, "restores by each method")
	o.disk.add(f)
	f.DurationVar(&o.window, "window", 10*time.Second,
		"how long each restored machine works; the counts are over this window")
	f.Uint64Var(&o.seed, "seed", 1, "decides the order of the restores")
	f.Float64Var(&o.drop, "drop", 0, "percent of the working set's pages to lose at random")
	f.StringVar(&o.keep, "keep", "", "keep checkpoint and store in this new directory")
	f.StringVar(&o.figure, "figure", "", "write the figure to this file, SVG")
	f.StringVar(&o.html, "html", "", "write a report to this file, HTML")
	return cmd
}

// check refuses what cannot be compared before anything is started.
func (o *compareOptions) check() ([]method, error) {
	ms, err := findMethods(o.methods)
	if err != nil {
		return nil, err
	}
	switch {
	case o.window < time.Second || o.guest.warm < 0 || o.guest.scan < 0 || o.guest.trace < 0:
		return nil, exitcode.Errorf(exitcode.Usage,
			"--window must be at least 1s; --warm, --scan and --trace must not be negative")
	case o.repeat < 1 || o.repeat > 1000:
		return nil, exitcode.Errorf(exitcode.Usage, "--repeat %d: from 1 to 1000", o.repeat)
	case o.drop < 0 || o.drop >= 100:
		return nil, exitcode.Errorf(exitcode.Usage,
			"--drop %g: from 0 to less than 100 percent; without all of it a restore is lazy", o.drop)
	}
	if _, err := o.disk.spec(); err != nil {
		return nil, err
	}
	if o.checkpoint == "" {
		if err := o.guest.check(ms); err != nil {
			return nil, err
		}
	}
	return ms, errors.Join(usableKVM(), usableHost())
}

// check refuses a guest that cannot be booted, or saved for the methods.
func (g labGuest) check(ms []method) error {
	spec := guest.Spec{Program: g.program}
	if err := parseGuestArgs(&spec, g.args); err != nil {
		return err
	}
	needs := func(source wss.Source) bool {
		return slices.ContainsFunc(ms, func(m method) bool {
			return m.set == string(source) || m.set == setUnion
		})
	}
	if needs(wss.SourceAccess) && g.scan == 0 || needs(wss.SourceTrace) && g.trace == 0 {
		return exitcode.Errorf(exitcode.Usage,
			"access and union need --scan, trace and union need --trace")
	}
	return checkMemory(int64(g.memory))
}

// comparison is one run of `thaw compare`.
type comparison struct {
	*lab
	o       compareOptions
	methods []method
	saved   api.CheckpointReply // of the guest, if it was saved for this
	record  *wss.Set            // the working sets of the checkpoint; nil: none
	results []labResult
}

func runCompare(ctx context.Context, a *app, o compareOptions) (err error) {
	ms, err := o.check()
	if err != nil {
		return err
	}
	l, err := newLab(a, o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	c := &comparison{lab: l, o: o, methods: ms}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for i, m := range plan(ms, o.repeat, o.seed) {
		if o.repeat > 1 {
			c.stage("%d of %d: %s", i+1, len(ms)*o.repeat, m.name)
		}
		r, err := c.run(ctx, m)
		if err != nil {
			return fmt.Errorf("%s restore: %w", m.name, err)
		}
		c.stage("%s", r.words())
		c.results = append(c.results, r)
	}
	return c.report()
}

// prepare has the checkpoint saved, where none was given, and imported.
func (c *comparison) prepare(ctx context.Context) error {
	if c.o.checkpoint != "" {
		abs, err := filepath.Abs(c.o.checkpoint)
		if err != nil {
			return err
		}
		c.checkpoint = abs
	} else {
		var err error
		if c.saved, err = c.save(ctx, c.o.guest); err != nil {
			return err
		}
	}
	var err error
	if c.record, err = readRecord(c.checkpoint); err != nil {
		return err
	}
	return c.importSets(ctx)
}

// readRecord reads the working sets of a checkpoint directory; nil if it has none.
func readRecord(dir string) (*wss.Set, error) {
	f, err := os.Open(filepath.Join(dir, "working-set"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	set, err := wss.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return set, nil
}

// plain is the checkpoint's name in the store for the methods without a set.
const plain = "plain"

// importSets imports the checkpoint once for each working set that a method needs. The memory is
// stored once: what differs is the segment that is prefetched. The union comes first, for the first
// import decides the locality blocks that all of them share. What is to be lost is lost to the blocks
// as well: an estimate that missed a page does not know where it belongs.
func (c *comparison) importSets(ctx context.Context) error {
	dir, err := c.lose()
	if err != nil {
		return err
	}
	st, err := c.importAs(ctx, dir, plain)
	if err != nil {
		return err
	}
	c.stage("imported in %.1f s (%s/s): %s stored, %.0f %% of the memory", st.Seconds,
		size(int64(float64(st.MemoryBytes)/max(st.Seconds, 1e-9))), size(st.StoredBytes),
		100*float64(st.StoredBytes)/float64(st.MemoryBytes))
	for _, m := range c.methods {
		if m.set == "" {
			continue
		}
		if c.record == nil {
			return exitcode.Errorf(exitcode.WorkingSet, "%s has no working set; save the machine with "+
				"--scan and --trace, or leave out the method %s", c.checkpoint, m.name)
		}
		set, err := m.setOf(c.record)
		if err != nil {
			return exitcode.With(exitcode.WorkingSet, err)
		}
		dir, err := c.withSet(m.name, set)
		if err != nil {
			return err
		}
		if _, err := c.importAs(ctx, dir, m.name); err != nil {
			return err
		}
	}
	return nil
}

// lose takes pages out of the working sets that the methods need, at random, where that was asked
// for. It gives the checkpoint that says no more of them.
func (c *comparison) lose() (dir string, err error) {
	if c.o.drop == 0 || c.record == nil {
		return c.checkpoint, nil
	}
	needed := onlyFor(c.record, c.methods)
	if len(needed.Runs) == 0 {
		return c.checkpoint, nil
	}
	c.record = needed.Drop(c.o.drop, c.o.seed)
	return c.withSet(plain, c.record)
}

// withSet makes a directory that is the checkpoint with another working set.
func (c *comparison) withSet(name string, set *wss.Set) (string, error) {
	dir := filepath.Join(c.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for _, file := range []string{"memory", "state", "info.json"} {
		from := filepath.Join(c.checkpoint, file)
		if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.Symlink(from, filepath.Join(dir, file)); err != nil {
			return "", err
		}
	}
	f, err := os.Create(filepath.Join(dir, "working-set"))
	if err != nil {
		return "", err
	}
	_, err = set.WriteTo(f)
	return dir, errors.Join(err, f.Close())
}

// run restores by one method.
func (c *comparison) run(ctx context.Context, m method) (labResult, error) {
	c.stage("restoring %s", m.says)
	r := labRun{method: m.name, name: plain, policy: m.policy, disk: c.o.disk.name, runs: c.o.window,
		window: c.o.window}
	if m.set != "" {
		r.name = m.name
	}
	if m.raw {
		return c.restoreRaw(ctx, r)
	}
	return c.restore(ctx, r)
}
