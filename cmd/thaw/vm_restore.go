package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

type vmRestoreOptions struct {
	vmOptions
	requested, touched string
}

func newVMRestoreCommand(a *app) *cobra.Command {
	var o vmRestoreOptions
	cmd := &cobra.Command{
		Use:   "restore DIR",
		Short: "Let a saved machine go on",
		Long: `Make a machine from the checkpoint directory DIR, on disk or on a mount, and let it go
on, in the foreground. Its memory is mapped privately: its changes are private, and
the checkpoint stays as it is. It can be saved again.

The report says when the first instruction ran, counted from the start of the command,
and how many pages the guest touched within the window. With --count it also says how
many were prefetched (in the page cache before the first instruction), skipped
(prefetched, then touched) and lazy (touched, not prefetched). With asynchronous
userfaultfd write-protection (Linux 6.7) that is exact to the page.

A machine that was saved on a CPU with features that this host does not have is
refused, and the error names them. With --force it is restored anyway; it may fail at
any time.

A machine whose memory cannot be read (the server of its mount is gone, a page is
damaged) ends with exit status and error of its own. For this its page tables are read
first if its memory is on a mount. Use --no-page-tables for restores whose reads are
recorded: then the working set has only pages that the guest itself needs.

DIR has to stay as it is while the machine runs (thaw vm checkpoint --help). A
differential checkpoint needs its parents too.` +
			exitStatus(exitcode.NotFound, exitcode.Unsupported, exitcode.ServerGone,
				exitcode.MemoryLost, exitcode.GuestFailed, exitcode.BadState),
		Example: `  thaw vm restore /mnt/thaw/web-1 --for 10s
  thaw vm restore /tmp/saved --api /tmp/vm.sock --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDirs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runVMRestore(cmd.Context(), a, args[0], o), "vm restore")
		},
	}
	f := cmd.Flags()
	o.addFlags(f)
	f.StringArrayVar(&o.disks, "disk", nil,
		"disk FILE[,ro] in place of one that the machine had, all of them in their order")
	f.DurationVar(&o.Window, "window", vmm.DefaultWindow,
		"for how long after the first instruction pages are counted")
	f.StringVar(&o.requested, "requested", "",
		"when the restore was asked for (RFC 3339), if not now")
	f.BoolVar(&o.Count, "count", false,
		"count the prefetched pages before the guest starts (some 15 ms for each GiB)")
	f.BoolVar(&o.NoTables, "no-page-tables", false,
		"do not read the guest's page tables before it starts, where a mount has them")
	f.BoolVar(&o.ReadAround, "read-around", false,
		"let the kernel read up to 128 KiB around a page, as it does for VMMs that do not prevent it")
	f.StringVar((*string)(&o.Clock), "clock", string(state.ClockResume),
		"the guest's clock goes on where it stopped (resume), or follows the wall clock (realtime)")
	f.BoolVar(&o.Force, "force", false,
		"restore also on a host whose CPU or KVM lacks features that the machine uses")
	f.StringVar(&o.touched, "touched", "",
		"write the pages touched within the window to this file, as a working set")
	return cmd
}

func runVMRestore(ctx context.Context, a *app, dir string, o vmRestoreOptions) error {
	o.Requested = time.Now()
	if err := o.prepare(a, "restored "+dir); err != nil {
		return err
	}
	if err := access.Answering(ctx, dir); err != nil {
		return err
	}
	if o.Window <= 0 {
		return exitcode.Errorf(exitcode.Usage, "--window must be more than 0")
	}
	if o.Clock != state.ClockResume && o.Clock != state.ClockRealtime {
		return exitcode.Errorf(exitcode.Usage, "--clock %q: give resume or realtime", o.Clock)
	}
	if o.requested != "" {
		var err error
		if o.Requested, err = time.Parse(time.RFC3339Nano, o.requested); err != nil {
			return exitcode.Errorf(exitcode.Usage, "--requested: %v", err)
		}
	}
	return o.run(a, state.HasConsole(dir), func(cfg vmm.Config) (*vmm.Report, error) {
		rep, err := vmm.Restore(ctx, dir, cfg)
		if rep != nil && o.touched != "" {
			err = errors.Join(err, writeTouched(o.touched, rep))
		}
		return rep, err
	})
}

// sourcePagemap is the source of runs that the VMM read out of its page table.
const sourcePagemap wss.Source = "pagemap"

// writeTouched writes the touched pages, ascending: the page table knows no order.
func writeTouched(path string, rep *vmm.Report) error {
	r := rep.Restore
	if r == nil || r.Touched == nil {
		return fmt.Errorf("%s: the touched pages are not known", path)
	}
	window := time.Duration(r.Window * float64(time.Second)).Truncate(time.Microsecond)
	way := "pages touched by a restored machine, exact"
	if !r.Exact {
		way = "pages touched by a restored machine, with neighbours"
	}
	set := wss.Set{ImagePages: rep.GuestPages, Window: window, Way: way,
		Created: time.Now().UTC().Truncate(time.Second)}
	for first, n := range r.Touched.Runs() {
		set.Runs = append(set.Runs, wss.Run{GFN: first, Count: n, At: window, Source: sourcePagemap,
			VCPU: wss.NoVCPU})
	}
	return writeSet(path, &set)
}

// vmmError gives errors of the VMM that the general table does not have their exit codes.
func vmmError(err error) error {
	switch {
	case errors.Is(err, kvm.ErrUnavailable):
		return exitcode.WithHint(exitcode.Unsupported, err,
			"the VMM needs /dev/kvm and the right to use it")
	case errors.Is(err, ram.ErrStuck):
		return exitcode.WithHint(exitcode.ServerGone, err, control.StoppedHint("MNT"))
	case errors.Is(err, os.ErrNotExist):
		return exitcode.With(exitcode.NotFound, err)
	}
	return err
}
