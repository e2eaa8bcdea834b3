package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/outfile"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/qemu"
	"github.com/thawfs/thaw/wss/report"
	"github.com/thawfs/thaw/wss/scan"
)

type wsScanOptions struct {
	qmp, memory, out string
	within           time.Duration
	budget           float64 // percent
}

func newWSScanCommand(a *app) *cobra.Command {
	var o wsScanOptions
	cmd := &cobra.Command{
		Use:   "scan --qemu SOCKET --memory FILE --out FILE",
		Short: "Estimate the working set of a running QEMU machine from outside",
		Long: `Scan the access bits of a machine that runs under QEMU, from outside, while it runs, and
write what it touched within the last --within as a working set (source access). Save
the machine just afterwards; the file goes into the checkpoint directory as
"working-set", before "thaw import", or is set by "thaw ws import" later.

Neither QEMU nor the guest is changed. The guest's RAM has to be a file that is mapped
shared, and no other program may use the QMP socket meanwhile:

  qemu-system-x86_64 … -m 4G \
    -object memory-backend-file,id=ram,size=4G,mem-path=/dev/shm/ram,share=on \
    -machine q35,memory-backend=ram -qmp unix:/run/vm.qmp,server=on,wait=off

The machine is stopped for moments, within --budget of its time; that sets how often
it is looked at. Pages are counted in the file, whose holes below 4 GiB QEMU leaves
out. The CPU must set the bits again when the guest switches between address spaces;
if it does not, that is an error, not an empty set.` +
			exitStatus(exitcode.NotFound, exitcode.NotImage, exitcode.Unsupported,
				exitcode.ServerGone, exitcode.WorkingSet, exitcode.Interrupted),
		Example: `  thaw ws scan --qemu /run/vm.qmp --memory /dev/shm/ram --out saved/working-set`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return named(runWSScan(cmd.Context(), a, o), "ws scan")
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.qmp, "qemu", "", "QMP socket of the machine")
	f.StringVar(&o.memory, "memory", "", "file that is the machine's RAM")
	f.StringVar(&o.out, "out", "", "file for the working set")
	f.DurationVar(&o.within, "within", scan.DefaultWithin, "how far back a touch counts")
	f.Float64Var(&o.budget, "budget", 100*scan.DefaultBudget,
		"percent of the machine's time that scanning may take")
	return cmd
}

func runWSScan(ctx context.Context, a *app, o wsScanOptions) error {
	if o.qmp == "" || o.memory == "" || o.out == "" {
		return exitcode.Errorf(exitcode.Usage, "--qemu, --memory and --out have to be given")
	}
	if o.within <= 0 || o.budget <= 0 || o.budget > 100 {
		return exitcode.Errorf(exitcode.Usage,
			"--within must be more than 0, --budget more than 0 and at most 100 percent")
	}
	soon, cancel := context.WithTimeout(ctx, machineAnswer)
	defer cancel()
	g, err := qemu.Open(soon, o.qmp, o.memory)
	switch {
	case err != nil && ctx.Err() == nil && soon.Err() != nil:
		return exitcode.WithHint(exitcode.ServerGone,
			fmt.Errorf("QEMU has not answered at %s for %v: %w", o.qmp, machineAnswer, err),
			"is its process stopped, or does another program use its QMP socket?")
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return exitcode.With(exitcode.NotFound, err)
	case errors.Is(err, qemu.ErrOtherMemory):
		return exitcode.With(exitcode.NotImage, err)
	case err != nil:
		return err
	}
	set, stats, err := scanGuest(ctx, g, o)
	if err = errors.Join(err, g.Close()); err != nil {
		return err
	}
	if err := writeSet(o.out, set); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Summary report.Summary `json:"summary"`
			Scan    scan.Stats     `json:"scan"`
		}{report.Summarize(set), stats})
	}
	a.note("%s: %s in %s pages, touched within %v; %d sweeps took %.2f %% of the machine's time, "+
		"the longest %.1f ms", o.out, size(set.Bytes()), count(set.Pages()), o.within, stats.Sweeps,
		100*stats.Share, 1000*stats.LongestPause)
	return nil
}

func scanGuest(ctx context.Context, g *qemu.Guest, o wsScanOptions) (*wss.Set, scan.Stats, error) {
	tables, err := scan.NewTables(g, scan.TableOptions{})
	if err != nil {
		return nil, scan.Stats{}, err
	}
	s := scan.New(tables, scan.Options{Within: o.within, Budget: o.budget / 100})
	set, err := s.Estimate(ctx, o.within)
	if errors.Is(err, scan.ErrNoBits) {
		err = exitcode.WithHint(exitcode.Unsupported, err,
			"does the guest run, with several processes? it may also be idle")
	}
	return set, s.Stats(), err
}

// writeSet writes a working set into a file, replacing it in one step.
func writeSet(path string, set *wss.Set) error {
	return outfile.Write(path, outfile.Private, func(w io.Writer) error {
		_, err := set.WriteTo(w)
		return err
	})
}
