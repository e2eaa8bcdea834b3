package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
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
			if err := e.into(&r); err != nil {
				return err
			}
			if err := answering(cmd.Context(), r.Dir); err != nil {
				return fmt.Errorf("vm checkpoint: %w", err)
			}
			if _, err := os.Lstat(r.Dir); err == nil {
				return exitcode.WithHint(exitcode.Exists,
					fmt.Errorf("vm checkpoint: %s exists already", r.Dir), "give a directory that does not")
			}
			rep, err := checkpointMachine(cmd.Context(), api.NewClient(args[0]), r)
			if err != nil {
				return machineError("checkpoint", err)
			}
			if a.json {
				return a.printJSON(rep)
			}
			a.printf("%s\n", checkpointLine(rep))
			a.printf("%s", estimateLines(rep))
			if rep.Note != "" {
				a.note("%s", rep.Note)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Stop, "stop", false, "end the machine once it is saved")
	f.BoolVar(&r.Diff, "diff", false, "write only what changed since the last checkpoint or restore")
	f.BoolVar(&r.NoRemap, "no-remap", false, "do not map the machine's memory from DIR afterwards")
	e.addFlags(f)
	return cmd
}

// checkpointMachine has a machine saved, which takes its time; that it answers at all shows before.
func checkpointMachine(ctx context.Context, c *api.Client, r api.CheckpointRequest) (
	api.CheckpointReply, error) {
	soon, cancel := context.WithTimeout(ctx, machineAnswer)
	defer cancel()
	if _, err := c.Status(soon); err != nil {
		return api.CheckpointReply{}, err
	}
	return c.Checkpoint(ctx, r)
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

// guestArgs prints the options of a guest program as a user writes them.
func guestArgs(args map[string]string) string {
	var s string
	for _, k := range sortedKeys(args) {
		s += fmt.Sprintf(" %s=%s", k, args[k])
	}
	return s
}
