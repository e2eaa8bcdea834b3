package main

import (
	"bytes"
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

type wsRecordOptions struct {
	reset, force bool
	share        maxShareFlag
}

// recordReply is what `thaw ws record --json` prints: the working set that was recorded. Warning
// says what was left out of it.
type recordReply struct {
	Checkpoint index.Checkpoint `json:"checkpoint"`
	Pages      uint64           `json:"pages"`
	Runs       int              `json:"runs"`
	Window     float64          `json:"window_seconds"`
	Warning    string           `json:"warning,omitempty"`
}

func newWSRecordCommand(a *app) *cobra.Command {
	var o wsRecordOptions
	cmd := &cobra.Command{
		Use:   "record MNT/NAME",
		Short: "Make a working set of what a lazy restore read",
		Long: `Make the checkpoint's working set of what was read on demand since its image was last
cold, in first-touch order, clones included, up to the record window of the mount.

For any VMM: reset, restore a machine from MNT/NAME/memory (or a clone), let it run for
some seconds, record.

An image that was not cold at the start (pages had been pushed into it) has no such
record. --reset drops its pages and begins anew; nothing is recorded yet.

What a program read that is not a machine (a copy, a backup, a checksum, "file") is left out.
If nothing else was read, that is refused, with the name of the program; so is a record of
a machine that maps a file of which a program has read much meanwhile, because the machine
then found pages that it did not ask for (machines on clones have files of their own).
--force takes all reads, whoever made them.

The record is exact to the page, also with a VMM that asks for huge pages.

A set that large is of no use (a machine that reads all of its memory within the window)
is cut to its front, with a warning: see --max-share.` +
			exitStatus(exitcode.NotFound, exitcode.Busy, exitcode.ServerGone, exitcode.NotCold,
				exitcode.WorkingSet),
		Example: `  thaw ws record --reset /mnt/thaw/web-1
  qemu-system-x86_64 ... mem-path=/mnt/thaw/web-1/clones/a/memory ... &
  sleep 10; thaw ws record /mnt/thaw/web-1`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completePlace,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runWSRecord(cmd.Context(), a, args[0], o), "ws record %s", args[0])
		},
	}
	cmd.Flags().BoolVar(&o.reset, "reset", false, "make the image cold and begin to record")
	cmd.Flags().BoolVar(&o.force, "force", false,
		"record also reads that no machine makes")
	o.share.addTo(cmd.Flags(), "cut the set")
	return cmd
}

func runWSRecord(ctx context.Context, a *app, path string, o wsRecordOptions) error {
	policy, err := o.share.policy()
	if err != nil {
		return err
	}
	m, server, err := access.Checkpoint(ctx, path)
	if err != nil {
		return err
	}
	if o.reset {
		if err := server.Drop(ctx, control.DropRequest{Name: m.Name, Record: true}); err != nil {
			return err
		}
		a.note("%s is cold; restore a machine from it, then: thaw ws record %s", m.Name, path)
		return nil
	}
	r, err := server.Record(ctx, control.RecordRequest{Name: m.Name, Force: o.force})
	if err != nil {
		return err
	}
	set, err := wss.Parse(bytes.NewReader(r.Text))
	if err != nil {
		return err
	}
	set, large := policy.Apply(set)
	reply := recordReply{Pages: set.Pages(), Runs: len(set.Runs), Window: set.Window.Seconds()}
	if large != nil {
		reply.Warning = large.Error() + "; the rest of it was left out"
	}
	var text bytes.Buffer
	if _, err := set.WriteTo(&text); err != nil {
		return err
	}
	if reply.Checkpoint, err = a.setWorkingSet(ctx, r.Store, r.Version, text.Bytes(),
		policy); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(reply)
	}
	a.note("the working set of %s is now %s (%s pages in %s runs, read within %v)", m.Name,
		size(int64(reply.Pages)*index.PageSize), count(reply.Pages), count(reply.Runs),
		set.Window.Round(time.Millisecond))
	a.warn(reply.Warning)
	return nil
}
