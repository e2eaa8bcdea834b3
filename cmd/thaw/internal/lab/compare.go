package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index/blob/disk"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

// Options say what is compared.
type Options struct {
	Checkpoint string // a checkpoint directory; "": the guest is booted and saved
	Guest      Guest

	Methods []string      // of MethodNames
	Repeat  int           // restores by each method
	Disk    string        // a name of package disk
	Window  time.Duration // how long each restored machine works; what it does then is counted
	Seed    uint64        // decides the order of the restores, and which pages are dropped
	Drop    float64       // percent of each working set to leave out, at random

	Keep         string // new directory that checkpoint and store stay in; "": nothing stays
	Figure, HTML string // files for the figure and the page; "": none
}

// Comparison is one run of a lab.
type Comparison struct {
	testbed
	o        Options
	methods  []method
	saved    saved    // of the guest, if it was saved for this
	record   *wss.Set // the working sets of the checkpoint; nil: none
	warm     outcome
	outcomes []outcome
}

// New refuses what cannot be compared. Nothing is started or made yet.
func New(p Program, o Options) (*Comparison, error) {
	ms, err := findMethods(o.Methods)
	if err != nil {
		return nil, err
	}
	if err := o.check(ms); err != nil {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	return &Comparison{testbed: testbed{program: p}, o: o, methods: ms}, nil
}

func (o *Options) check(ms []method) error {
	g := o.Guest
	switch {
	case o.Window < time.Second || g.Warm < 0 || g.Scan < 0 || g.Trace < 0:
		return errors.New("--window must be at least 1s; --warm, --scan and --trace must not be negative")
	case o.Repeat < 1 || o.Repeat > 1000:
		return fmt.Errorf("--repeat %d: from 1 to 1000", o.Repeat)
	case o.Drop < 0 || o.Drop >= 100:
		return fmt.Errorf("--drop %g: from 0 to less than 100 percent; without all of it a restore is lazy",
			o.Drop)
	}
	if _, err := disk.ParseSpec(o.Disk); err != nil {
		return err
	}
	if o.Checkpoint != "" {
		return nil
	}
	needs := func(source wss.Source) bool {
		return slices.ContainsFunc(ms, func(m method) bool {
			return m.set == string(source) || m.set == setUnion
		})
	}
	if needs(wss.SourceAccess) && g.Scan == 0 || needs(wss.SourceTrace) && g.Trace == 0 {
		return errors.New("access and union need --scan, trace and union need --trace")
	}
	return nil
}

// Run saves the machine, restores it by every method and writes the files that were asked for. When
// it returns, all processes that it started have ended, and what it made is removed except for what
// was to be kept. The result is nil if the comparison failed; a result with an error means that only
// the removal failed.
func (c *Comparison) Run(ctx context.Context) (r *Result, err error) {
	if err := checkKVM(); err != nil {
		return nil, err
	}
	if err := c.create(c.o.Keep); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	if err := c.warmRun(ctx); err != nil {
		return nil, fmt.Errorf("warm restore: %w", err)
	}
	for i, m := range plan(c.methods, c.o.Repeat, c.o.Seed) {
		if c.o.Repeat > 1 {
			c.stage("%d of %d: %s", i+1, len(c.methods)*c.o.Repeat, m.name)
		}
		o, err := c.try(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("%s restore: %w", m.name, err)
		}
		c.stage("%v", o)
		c.outcomes = append(c.outcomes, o)
	}
	if r, err = c.result(); err != nil {
		return nil, err
	}
	c.stage("done")
	return r, nil
}

// prepare has the checkpoint saved, if none was given, and imported.
func (c *Comparison) prepare(ctx context.Context) (err error) {
	if c.o.Checkpoint == "" {
		c.saved, err = c.save(ctx, c.o.Guest)
	} else {
		c.checkpoint, err = filepath.Abs(c.o.Checkpoint)
	}
	if err != nil {
		return err
	}
	if err := c.checkWhole(); err != nil {
		return err
	}
	if c.record, err = readRecord(c.checkpoint); err != nil {
		return err
	}
	return c.importSets(ctx)
}

// checkWhole refuses a differential checkpoint for the raw methods: the pages of its parents are not
// in its memory file, so the VMM would read them without the mount, and without the simulated disk.
func (c *Comparison) checkWhole() error {
	if !slices.ContainsFunc(c.methods, func(m method) bool { return m.raw }) {
		return nil
	}
	img, err := state.OpenImage(c.checkpoint)
	if err != nil {
		return err
	}
	if img.Differential() {
		err = exitcode.WithHint(exitcode.NotImage,
			fmt.Errorf("%s is a differential checkpoint, which the raw methods cannot serve", c.checkpoint),
			`make a whole one with "thaw import" and "thaw export", or leave these methods out`)
	}
	return errors.Join(err, img.Close())
}

// readRecord reads the working sets of a checkpoint directory; nil if it has none.
func readRecord(dir string) (*wss.Set, error) {
	set, err := readSet(filepath.Join(dir, "working-set"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return set, err
}

func readSet(path string) (*wss.Set, error) {
	f, err := os.Open(path)
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
// stored once: what differs is the segment that is prefetched. The union comes first, because the
// first import decides the locality blocks that all of them share. Pages that are dropped from the
// sets are dropped from the blocks as well: an estimate that missed a page does not know where it
// belongs.
func (c *Comparison) importSets(ctx context.Context) error {
	dir, err := c.dropPages()
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

// dropPages takes pages out of the working sets that the methods need, at random, if that was asked
// for. It returns the checkpoint directory without them.
func (c *Comparison) dropPages() (dir string, err error) {
	if c.o.Drop == 0 || c.record == nil {
		return c.checkpoint, nil
	}
	needed := onlyFor(c.record, c.methods)
	if len(needed.Runs) == 0 {
		return c.checkpoint, nil
	}
	c.record = needed.Drop(c.o.Drop, c.o.Seed)
	return c.withSet(plain, c.record)
}

// withSet makes a directory that is the checkpoint with another working set.
func (c *Comparison) withSet(name string, set *wss.Set) (string, error) {
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
	f, err := os.OpenFile(filepath.Join(dir, "working-set"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = set.WriteTo(f)
	return dir, errors.Join(err, f.Close())
}

// warmWindow is how long the warm machine works: delays are told of the first second of its work.
const warmWindow = 2 * report.WarmSpan

// warmRun restores once with all of the memory in the page cache. What the guest does then no restore
// can better: the delays of the methods are measured against it.
func (c *Comparison) warmRun(ctx context.Context) (err error) {
	c.stage("restoring with all of its memory in the page cache, to measure the others against")
	c.warm, err = c.restore(ctx, trial{method: method{name: "warm", policy: fs.PolicyLazy}, name: plain,
		disk: disk.Native, window: min(warmWindow, c.o.Window), warm: true})
	if err != nil {
		return err
	}
	c.stage("warm: ran after %.3f s", c.warm.method.Ready.Seconds())
	if n := c.warm.method.Lazy; n > 0 {
		c.remark(fmt.Sprintf("%s pages had left the page cache again and were fetched on demand; the "+
			"delays are that much too small", count(n)))
	}
	return nil
}

// try restores by one method.
func (c *Comparison) try(ctx context.Context, m method) (o outcome, err error) {
	c.stage("restoring %s", m.how)
	r := trial{method: m, name: plain, disk: c.o.Disk, window: c.o.Window}
	if m.set == "" {
		return c.restore(ctx, r)
	}
	r.name = m.name
	if r.set, err = m.setOf(c.record); err != nil {
		return o, err
	}
	return c.restore(ctx, r)
}
