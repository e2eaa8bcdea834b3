package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/wss/scan"
)

func newVMCheckpointCommand(a *app) *cobra.Command {
	var r api.CheckpointRequest
	var e estimateOptions
	cmd := &cobra.Command{
		Use:   "checkpoint SOCK DIR",
		Short: "Save a machine into a checkpoint directory",
		Long: `Save the machine behind SOCK into the new directory DIR: "memory", "state" and
"info.json". After an error there is no DIR. The machine is paused while its memory is
copied, and goes on while the copy is written to disk, also if saving fails; with
--stop it ends when it is saved.

Afterwards the memory of a machine that goes on is mapped from DIR: unchanged pages
are in the page cache, and thaw knows which pages the machine touches and changes. So
DIR must stay as it is: removing or renaming it harms only later differential
checkpoints, but writing into its files destroys the machine. --no-remap leaves the
machine's memory where it is; use it if DIR will be changed.

With --diff only the pages are written that changed since the checkpoint that the
memory is mapped from. Such a directory needs its parent: "thaw vm restore" and "thaw
import" find it where it was then, or beside DIR, and refuse a different one.

--scan and --trace estimate the working set of a running machine and put it into DIR as
"working-set", by which "thaw import" lays the memory out. --scan T looks at the access
bits of its page tables for T before the checkpoint (up to twice as long, if it takes that
to stay) within --scan-budget of the machine's time: what was touched in that time (source
access). --trace T lets it go on for T after the checkpoint and records each page that it
touches, in order, with time and vCPU where KVM's tracepoint tells them, which takes root
(source trace); otherwise in the order of scans every 10 ms or, before Linux 6.7, of page
faults that thaw serves one by one, which slows the machine down more. With both, both are
in the record. DIR is complete before the trace begins.` +
			exitStatus(exitcode.NotFound, exitcode.Exists, exitcode.NoSpace, exitcode.Busy,
				exitcode.ServerGone),
		Example: `  thaw vm checkpoint /tmp/vm.sock /tmp/saved
  thaw vm checkpoint /tmp/vm.sock /tmp/saved --scan 10s --trace 10s
  thaw vm checkpoint /tmp/vm.sock /tmp/later --diff --stop
  thaw import /srv/store /tmp/later --name web-1`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Dir = args[1]
			return runVMCheckpoint(cmd.Context(), a, args[0], r, e)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Stop, "stop", false, "end the machine once it is saved")
	f.BoolVar(&r.Diff, "diff", false, "write only what changed since the last checkpoint or restore")
	f.BoolVar(&r.NoRemap, "no-remap", false, "do not map the machine's memory from DIR afterwards")
	e.addFlags(f)
	return cmd
}

func runVMCheckpoint(ctx context.Context, a *app, sock string, r api.CheckpointRequest,
	e estimateOptions) error {
	if err := e.into(&r); err != nil {
		return err
	}
	if err := access.Answering(ctx, r.Dir); err != nil {
		return fmt.Errorf("vm checkpoint: %w", err)
	}
	if _, err := os.Lstat(r.Dir); err == nil {
		return exitcode.WithHint(exitcode.Exists,
			fmt.Errorf("vm checkpoint: %s exists already", r.Dir), "give a directory that does not")
	}
	// To save takes its time; that the machine answers at all shows before.
	var rep api.CheckpointReply
	err := awaitMachine(ctx, sock)
	if err == nil {
		rep, err = api.NewClient(sock).Checkpoint(ctx, r)
	}
	if err != nil {
		return machineError("checkpoint", err)
	}
	if a.json {
		return a.printJSON(rep)
	}
	a.printf("%s\n%s", checkpointLine(rep), estimateLines(rep))
	if rep.Note != "" {
		a.note("%s", rep.Note)
	}
	return nil
}

// startPatience is how long a machine may take to make its socket: it may have been started right before.
const startPatience = 2 * time.Second

// awaitMachine returns when a machine answers, or with the reason why it does not.
func awaitMachine(ctx context.Context, sock string) error {
	for end := time.Now().Add(startPatience); ; {
		_, err := askMachine(ctx, sock, (*api.Client).Status)
		nobody := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
		if !nobody || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(startPatience / 40):
		}
	}
}

// checkpointLine says what was written, and what it cost.
func checkpointLine(r api.CheckpointReply) string {
	what := fmt.Sprintf("%s of memory", size(int64(r.MemoryBytes)))
	if r.Parent != "" {
		what += fmt.Sprintf(", %s pages changed since %s", count(r.ChangedPages), r.Parent)
	}
	return fmt.Sprintf("%s: %s, %s written, in %.3f s (paused for %.3f s)", r.Dir, what,
		size(int64(r.WrittenBytes)), r.Seconds, r.PauseSeconds)
}

// estimateOptions are how the working set is estimated around a checkpoint.
type estimateOptions struct {
	scan, trace time.Duration
	budget      float64 // percent
}

func (o *estimateOptions) addFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.scan, "scan", 0, "for how long before the checkpoint access bits are scanned")
	f.Float64Var(&o.budget, "scan-budget", 100*scan.DefaultBudget,
		"percent of the machine's time that scanning may take")
	f.DurationVar(&o.trace, "trace", 0, "for how long after the checkpoint first touches are traced")
}

// into puts the options into a request.
func (o *estimateOptions) into(r *api.CheckpointRequest) error {
	switch {
	case o.scan < 0 || o.trace < 0:
		return exitcode.Errorf(exitcode.Usage, "--scan and --trace: a time below zero")
	case o.budget <= 0 || o.budget > 100:
		return exitcode.Errorf(exitcode.Usage, "--scan-budget %g: more than 0, at most 100 percent",
			o.budget)
	case o.trace > 0 && r.NoRemap:
		return exitcode.Errorf(exitcode.Usage,
			"--trace needs the memory mapped from DIR, which --no-remap refuses")
	}
	r.ScanSeconds, r.ScanBudget = o.scan.Seconds(), o.budget/100
	r.TraceSeconds = o.trace.Seconds()
	return nil
}

// estimateLines say what was found.
func estimateLines(r api.CheckpointReply) (text string) {
	if s := r.Scan; s != nil {
		text += fmt.Sprintf("access bits: %s pages; %s\n", count(s.Pages), s.Way)
	}
	if t := r.Trace; t != nil {
		text += fmt.Sprintf("trace: %s pages in %.3g s; %s", count(t.Pages), t.Seconds, t.Way)
		if t.LostEvents+t.SilentPages > 0 {
			text += fmt.Sprintf("; %s events lost, %s pages without one", count(t.LostEvents),
				count(t.SilentPages))
		}
		text += "\n"
	}
	return text
}
