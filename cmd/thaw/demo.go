package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
	"github.com/thawfs/thaw/index/blob/disk"
)

// demoSet is the working set of the demo's heap: what a guest can touch within the window, so that
// all of it is known.
const demoSet = "set=64MiB"

func newDemoCommand(a *app) *cobra.Command {
	o := lab.Options{
		Guest: lab.Guest{Program: "heap", Memory: 1 << 30, Warm: time.Second, Scan: 5 * time.Second,
			Trace: 5 * time.Second},
		Window:  5 * time.Second,
		Methods: []string{"eager", "lazy", "access", "trace"},
		Repeat:  1,
		Disk:    disk.Native,
	}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Save and restore a machine by four methods, in under a minute",
		Long: `Boot a machine with 1 GiB of memory that does transactions over a skewed heap of 64 MiB,
save it, put it into a store, mount the store, and restore the machine by four methods,
each time from a cold page cache:

  eager   all of its memory is brought before it starts
  lazy    nothing is brought before it starts; every page comes when it is touched
  access  its working set is, by the access bits that were scanned before it was saved
  trace   its working set is, by the accesses that were traced just after

Then print two tables. The first has the pages that were prefetched, those of them that
the machine used (skipped: it did not wait for them) and those that it waited for (lazy).
The second has the times: how long the restore took, when the machine was responsive
(TTR), its longest stall and all of them together, how much later than in a warm run it
had done its first transactions, and when it worked at its old speed again. The warm run
is one more restore, with all of memory in the page cache. The last line says what the
best method gained. "thaw compare" does the same with other guests, disks and
checkpoints; "thaw help glossary" explains the words.

The machine verifies every page that it reads. The demo removes everything that it
made except the figure; with --keep DIR it keeps all of it.

It needs /dev/kvm and /dev/fuse, and 2 GiB of disk in $TMPDIR. With --json: the tables,
the stalls and the work done as data.` +
			exitStatus(exitcode.NoSpace, exitcode.Unsupported, exitcode.GuestFailed,
				exitcode.Interrupted),
		Example: `  thaw demo
  thaw demo --json --keep /var/tmp/demo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(o.Guest.Args) == 0 && o.Guest.Program == "heap" {
				o.Guest.Args = []string{demoSet}
			}
			if o.Figure == "" {
				o.Figure = filepath.Join(os.TempDir(), "thaw-demo.svg")
				if o.Keep != "" {
					o.Figure = filepath.Join(o.Keep, "thaw-demo.svg")
				}
			}
			return named(runLab(cmd.Context(), a, o), "demo")
		},
	}
	f := cmd.Flags()
	addLabFlags(f, &o)
	f.Lookup("arg").Usage += " (default for heap: " + demoSet + ")"
	f.Lookup("figure").Usage += " (default thaw-demo.svg in $TMPDIR or in the --keep directory)"
	return cmd
}
