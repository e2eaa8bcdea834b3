package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/readbench"
	"github.com/thawfs/thaw/index"
)

type benchOptions struct {
	readbench.Config
	bs, offset, size, ioSize sizeFlag
	runtime                  secondsFlag
}

func newBenchCommand(a *app) *cobra.Command {
	o := benchOptions{bs: 4096}
	cmd := &cobra.Command{
		Use:   "bench FILE",
		Short: "Read a file in the patterns of fio, timed and verified",
		Long: `Read a file, above all the memory of a checkpoint on a mount, and print how long the
reads took and how many bytes a second came. The words are those of fio:

  --rw        read      block after block
              randread  each block once, in random order
              zipf      at random, a few blocks much more often than others (--zipf-theta)
  --ioengine  mmap      page faults in a mapping, as a virtual machine takes them
              psync     pread(2)

Every job reads the whole part of the file (--offset, --size) once, or as much of it as
--io-size and --runtime allow; with --time-based it begins anew until --runtime is over.
With --verify each block is compared with the same block of another file, for example the
image that was imported; verifying is not part of the latencies, but lowers the throughput.

With mmap, "major" page faults are those whose page was not in the page cache: what the
server of the mount had to answer. If the server dies the reads fail; they never hang and
never crash this program.

A checkpoint's memory is prefetched when it is opened. For reads that are all lazy, mount
with --restore=lazy, or make it cold with "thaw ws record --reset MNT/NAME".` +
			exitStatus(exitcode.Partial, exitcode.Corrupt, exitcode.NotFound,
				exitcode.ServerGone),
		Example: `  thaw bench /mnt/thaw/web-1/memory --rw=randread --verify web-1.mem
  thaw bench /mnt/thaw/web-1/memory --rw=zipf --ioengine=psync --bs=64k --numjobs=4
  thaw bench /mnt/thaw/web-1/memory --rw=randread --runtime=10s --time-based --json`,
		GroupID: groupTools,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.File = args[0]
			if err := runBench(cmd.Context(), a, o); err != nil {
				return fmt.Errorf("bench %s: %w", args[0], err)
			}
			return nil
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

func (o *benchOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.RW, "rw", readbench.RandRead, "pattern: read, randread or zipf")
	f.Var(&o.bs, "bs", "size of a block")
	f.StringVar(&o.Engine, "ioengine", readbench.Mmap, "how to read: mmap or psync")
	f.IntVar(&o.NumJobs, "numjobs", 1, "jobs that read at the same time, each by itself")
	f.IntVar(&o.IODepth, "iodepth", 1, "requests that a job has outstanding")
	f.Var(&o.offset, "offset", "where the part begins that is read")
	f.Var(&o.size, "size", "length of the part (0: to the end of the file)")
	f.Var(&o.ioSize, "io-size", "bytes that each job reads (0: as many as the part has)")
	f.Var(&o.runtime, "runtime", "end after this time: 10s, or 10 (0: when all is read)")
	f.BoolVar(&o.TimeBased, "time-based", false, "begin anew until --runtime is over")
	f.Float64Var(&o.ZipfTheta, "zipf-theta", 1.2, "how uneven zipf is, above 1")
	f.StringVar(&o.Advice, "madvise", "",
		"of the mapping: normal, random or sequential (default sequential for read, else random)")
	f.Uint64Var(&o.Seed, "seed", 1, "of the random patterns")
	f.StringVar(&o.VerifyFile, "verify", "", "compare every block with this file")
	f.BoolVar(&o.ContinueOnError, "continue-on-error", false,
		"count blocks that cannot be read, go on")
	// fio's spelling (time_based), and a short word for ioengine.
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "engine" {
			name = "ioengine"
		}
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
}

// secondsFlag takes a duration; a bare number is seconds, as fio has it.
type secondsFlag time.Duration

func (f *secondsFlag) String() string { return time.Duration(*f).String() }
func (f *secondsFlag) Type() string   { return "duration" }
func (f *secondsFlag) Set(s string) error {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		s = strconv.FormatFloat(n, 'f', -1, 64) + "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a time (try 10s)", s)
	}
	*f = secondsFlag(d)
	return nil
}

// quietTooLong is when the user is told that no read comes back.
const quietTooLong = 10 * time.Second

func runBench(ctx context.Context, a *app, o benchOptions) error {
	for _, file := range []string{o.File, o.VerifyFile} {
		if err := answering(file); err != nil {
			return err
		}
	}
	o.BS, o.Offset, o.Size, o.IOSize = int(o.bs), int64(o.offset), int64(o.size), int64(o.ioSize)
	o.Runtime = time.Duration(o.runtime)
	bar, told := a.progress(), false
	o.Progress = func(done, total int64, quiet time.Duration) {
		bar.set(index.Progress{Stage: "reading", Unit: "bytes", Done: done, Total: total})
		if quiet < quietTooLong {
			told = false
		} else if !told {
			told = true
			a.note(`no read has come to an end for %v; if the server of the mount hangs, `+
				`"thaw umount --abort MNT" frees it`, quiet.Round(time.Second))
		}
	}
	r, err := readbench.Run(ctx, o.Config)
	bar.done()
	if r == nil {
		return benchError(err)
	}
	if r.Blocks > 0 || err == nil {
		if err := a.showBench(r); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		return benchError(err)
	case r.Mismatches > 0:
		at := r.BadAt[0]
		return exitcode.Errorf(exitcode.Corrupt,
			"%d of %d blocks differ from %s, the first at offset %d (gfn %d)",
			r.Mismatches, r.Verified, r.Config.VerifyFile, at, at/4096)
	case r.Errors > 0:
		return exitcode.With(exitcode.Partial,
			fmt.Errorf("%d blocks could not be read, the first: %w", r.Errors, r.FirstError))
	}
	return nil
}

// benchError gives an error of a run its exit code.
func benchError(err error) error {
	var bad *readbench.ConfigError
	switch {
	case errors.As(err, &bad):
		return exitcode.With(exitcode.Usage, err)
	case isDead(err):
		return exitcode.WithHint(exitcode.ServerGone, err,
			`the server of the mount is dead; free the mount point with "thaw umount MNT"`)
	case errors.Is(err, os.ErrNotExist):
		return exitcode.WithHint(exitcode.NotFound, err,
			"give the memory of a checkpoint: MNT/NAME/memory")
	}
	return err
}
