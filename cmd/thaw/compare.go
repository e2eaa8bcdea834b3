package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
)

func newCompareCommand(a *app) *cobra.Command {
	o := lab.Options{
		Guest: lab.Guest{Program: "heap", Memory: 1 << 30, Warm: 2 * time.Second,
			Scan: 10 * time.Second, Trace: 10 * time.Second},
		Window: 10 * time.Second,
	}
	var device diskFlag
	cmd := &cobra.Command{
		Use:   "compare [CHECKPOINT]",
		Short: "Restore one checkpoint by every method and compare",
		Long: `Restore one checkpoint by every method, each time from a cold page cache, and print
the table of the paper: the pages that were prefetched, those of them that the machine
used (skipped: it did not wait for them), those that it waited for (lazy), recall and
precision. A second table has the times: when the machine ran (restore), when it was
responsive (TTR), its longest stall and all of them together, how much later than in a
warm run it had done its first work, and when it worked at its old speed again
(recovery). The warm run is one more restore, with all of memory in the page cache.
Methods whose set comes while the machine runs have their head start, and the pages that
came late. JSON and the page also have the TTR at 70 %, and how fast the machine worked.

CHECKPOINT is a checkpoint directory of "thaw vm checkpoint", for access and trace with
a working set of that source (--scan, --trace). Without it a guest is booted and saved.

  eager      all of memory is brought before it starts
  lazy       nothing is; every page comes when it is touched
  access     its working set by the access bits scanned before the checkpoint is
  trace      its working set by the accesses traced after the checkpoint is
  trace-full the same set, but all of it has to be there before it starts; with --methods
  union      both are
  raw-eager  the plain image is read before it starts, without thaw
  raw-lazy   the plain image is mapped, without thaw; the kernel reads around faults

` + diskHelp + `
The raw methods are on the same device. With --repeat the methods take turns in random
order and the tables have medians, with the least and the most.

The figure shows the fraction of time spent fetching memory over time, a panel a method.
--html writes a page with everything in it that opens without a network.` +
			exitStatus(exitcode.NotFound, exitcode.NoSpace, exitcode.Unsupported,
				exitcode.GuestFailed, exitcode.WorkingSet, exitcode.Interrupted),
		Example: `  thaw compare --guest stream --disk hdd --window 30s --html stream.html
  thaw compare /var/tmp/saved --methods lazy,trace --repeat 5 --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.Checkpoint = args[0]
			}
			o.Disk = device.name
			return named(runLab(cmd.Context(), a, o), "compare")
		},
	}
	f := cmd.Flags()
	addLabFlags(f, &o)
	device.add(f)
	f.StringSliceVar(&o.Methods, "methods", []string{"eager", "lazy", "access", "trace", "union"},
		"methods to compare: "+strings.Join(lab.MethodNames(), ", "))
	f.IntVar(&o.Repeat, "repeat", 1, "restores by each method")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the random order of the restores")
	f.Float64Var(&o.Drop, "drop", 0, "percent of the working set's pages to leave out, at random")
	f.StringVar(&o.HTML, "html", "", "write a report to this file, HTML")
	return cmd
}
