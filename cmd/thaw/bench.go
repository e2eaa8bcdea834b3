package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/verify"
	"github.com/thawfs/thaw/index"
)

func newBenchCommand(a *app) *cobra.Command {
	var c verify.Config
	cmd := &cobra.Command{
		Use:   "bench FILE --against IMAGE",
		Short: "Read a file on a mount and compare every page with its image",
		Long: `Read all of a file, above all the memory of a checkpoint on a mount, and compare every page
with the same page of another file, for example the image that was imported.

  --by     mmap        page faults in a mapping, as a virtual machine takes them
           read        read(2)
  --order  random      page by page, each once
           sequential  from begin to end, in large blocks

If the server dies the reads fail; they never hang and never crash this program. To measure
reads use fio, with --readonly: it has every pattern, but verifies only what it wrote itself.

A checkpoint's memory is prefetched when it is opened. For reads that are all lazy, mount
with --restore=lazy, or make it cold with "thaw ws record --reset MNT/NAME".` +
			exitStatus(exitcode.Corrupt, exitcode.NotFound, exitcode.ServerGone),
		Example: `  thaw bench /mnt/thaw/web-1/memory --against web-1.mem
  thaw bench /mnt/thaw/web-1/memory --against web-1.mem --by=read --order=sequential`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.File = args[0]
			return named(runBench(cmd.Context(), a, c), "bench %s", args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Against, "against", "", "the file that every page is compared with")
	f.StringVar(&c.By, "by", verify.Mmap, "how to read: mmap or read")
	f.StringVar(&c.Order, "order", verify.Random, "random or sequential")
	f.Uint64Var(&c.Seed, "seed", 1, "of the random order")
	return cmd
}

// benchJSON is what `thaw bench --json` prints.
type benchJSON struct {
	File    string  `json:"file"`
	Against string  `json:"against"`
	By      string  `json:"by"`
	Order   string  `json:"order"`
	Seconds float64 `json:"elapsed_seconds"`
	Pages   int64   `json:"compared_pages"`
	Differ  int64   `json:"different_pages"`
	At      []int64 `json:"different_at,omitempty"`
}

func runBench(ctx context.Context, a *app, c verify.Config) error {
	if err := access.Answering(ctx, c.File, c.Against); err != nil {
		return err
	}
	bar := a.progress()
	c.Progress = func(done, total int64) {
		bar.set(index.Progress{Stage: "reading", Unit: "bytes", Done: done, Total: total})
	}
	c.Quiet = func() {
		a.note("no read has come to an end for %v; does the server of the mount hang? %s", verify.QuietTime,
			control.StoppedHint("MNT"))
	}
	r, err := verify.Run(ctx, c)
	bar.done()
	if err != nil {
		return benchError(err)
	}
	if a.json {
		err = a.printJSON(benchJSON{c.File, c.Against, c.By, c.Order, r.Elapsed.Seconds(), r.Pages,
			r.Differ, r.At})
	} else {
		a.printf("%s pages of %s compared with %s in %s (%s, %s): %s differ\n", count(r.Pages), c.File,
			c.Against, seconds(r.Elapsed), c.By, c.Order, count(r.Differ))
	}
	if err == nil && r.Differ > 0 {
		err = exitcode.Errorf(exitcode.Corrupt,
			"%d of %d pages differ from %s, the first found at offset %d (gfn %d)",
			r.Differ, r.Pages, c.Against, r.At[0], r.At[0]/verify.PageSize)
	}
	return err
}

// benchError gives an error of a run its exit code.
func benchError(err error) error {
	switch {
	case access.IsDead(err):
		return exitcode.WithHint(exitcode.ServerGone, err,
			`the server of the mount is dead; free the mount point with "thaw umount MNT"`)
	case errors.Is(err, os.ErrNotExist):
		return exitcode.WithHint(exitcode.NotFound, err,
			"give the memory of a checkpoint: MNT/NAME/memory")
	}
	return err
}
