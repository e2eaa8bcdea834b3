package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// wsCommands lists the verbs of `thaw ws`.
func wsCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newWSShowCommand(a),
		newWSRecordCommand(a),
		newWSImportCommand(a),
		newWSCombineCommand(a),
		newWSScanCommand(a),
	}
}

func newWSCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:     "ws",
		Short:   "Look at, record and set working sets",
		GroupID: groupSets,
		Long: `A working set is the list of pages that a machine touches first after its restore, in
the order in which it touched them. Opening a checkpoint's memory on a mount brings it
into the page cache.`,
	}, wsCommands(a)...)
}

func newWSRecordCommand(a *app) *cobra.Command {
	var reset bool
	var share maxShareFlag
	cmd := &cobra.Command{
		Use:   "record MNT/NAME",
		Short: "Make a working set of what a lazy restore read",
		Long: `Make the checkpoint's working set of what was read on demand since its image was last
cold, in first-touch order, clones included, up to the record window of the mount.

For any VMM: reset, restore a machine from MNT/NAME/memory (or a clone), let it run for
some seconds, record.

An image that was not cold at the start (pages had been pushed into it) has no such
record. --reset drops its pages and begins anew; nothing is recorded yet.

A set that large is of no use (a machine that reads all of its memory within the window)
is cut to its front, with a warning: see --max-share.` +
			exitStatus(exitcode.NotFound, exitcode.Busy, exitcode.ServerGone, exitcode.NotCold,
				exitcode.WorkingSet),
		Example: `  thaw ws record --reset /mnt/thaw/web-1
  qemu-system-x86_64 ... mem-path=/mnt/thaw/web-1/clones/a/memory ... &
  sleep 10; thaw ws record /mnt/thaw/web-1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := runWSRecord(cmd.Context(), a, args[0], reset, share); err != nil {
				return fmt.Errorf("ws record %s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&reset, "reset", false, "make the image cold and begin to record")
	share.addTo(cmd.Flags(), "cut the set")
	return cmd
}

func runWSRecord(ctx context.Context, a *app, path string, reset bool, share maxShareFlag) error {
	policy, err := share.policy()
	if err != nil {
		return err
	}
	ref, err := resolveCheckpoint(path)
	if err != nil {
		return err
	}
	client, err := ref.server(ctx)
	if err != nil {
		return err
	}
	if reset {
		if err := client.Call(ctx, verbDrop, dropRequest{Name: ref.Name, Record: true}, nil,
			nil); err != nil {
			return err
		}
		a.note("%s is cold; restore a machine from it, then: thaw ws record %s", ref.Name, path)
		return nil
	}
	r, err := call[recordReply](ctx, client, verbRecord,
		recordRequest{Name: ref.Name, MaxShare: policy.MaxShare}, nil)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	a.note("the working set of %s is now %s (%s pages in %s runs, read within %v)", ref.Name,
		size(int64(r.Pages)*index.PageSize), count(r.Pages), count(r.Runs),
		time.Duration(r.Window*float64(time.Second)).Round(time.Millisecond))
	a.warn(r.Warning)
	return nil
}

func newWSImportCommand(a *app) *cobra.Command {
	var share maxShareFlag
	cmd := &cobra.Command{
		Use:   "import {MNT/NAME | STORE NAME} FILE",
		Short: "Set a checkpoint's working set from a file",
		Long: `Set the working set of a checkpoint from a file in the format that
"thaw ws show --text" prints and MNT/NAME/working-set has. It replaces the one that was
there, and must fit the image. On a mount it serves from the next restore on: its pages
get a segment of their own for the prefetch. The blocks that single faults bring keep the
order of the import; to lay them out anew, export, put the set beside "memory", import.

A set beyond --max-share is refused: to bring so much before the machine runs makes a
restore slower, not faster. "thaw ws combine union FILE --max SIZE" keeps its front.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.NotFound,
				exitcode.WorkingSet),
		Example: `  thaw ws import /mnt/thaw/web-1 web-1.ws
  thaw ws import /srv/store web-1 web-1.ws`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := args[:len(args)-1]
			if err := runWSImport(cmd.Context(), a, target, args[len(args)-1], share); err != nil {
				return fmt.Errorf("ws import: %w", err)
			}
			return nil
		},
	}
	share.addTo(cmd.Flags(), "refuse a set")
	return cmd
}

func runWSImport(ctx context.Context, a *app, target []string, file string,
	share maxShareFlag) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return exitcode.WithHint(exitcode.NotFound, err,
			"FILE is a working set, such as one that \"thaw ws show --text\" printed")
	}
	if err != nil {
		return err
	}
	policy, err := share.policy()
	if err != nil {
		return err
	}
	var cp index.Checkpoint
	set := func(s storeAPI, name string) (err error) {
		if err := checkSize(text, policy); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		cp, err = s.SetWorkingSet(ctx, name, text)
		return err
	}
	if len(target) == 2 {
		err = a.withStore(ctx, target[0], func(s storeAPI) error { return set(s, target[1]) })
	} else {
		err = onMount(ctx, target[0], set)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(cp)
	}
	a.note("the working set of %s is now %s (%s pages in %s runs)", cp.Name,
		size(int64(cp.WorkingSet.Pages)*index.PageSize), count(cp.WorkingSet.Pages),
		count(cp.WorkingSet.Runs))
	return nil
}

// checkSize refuses a set that is too large for what it says its image is. What else may be wrong
// with it is found where it is set.
func checkSize(text []byte, policy wss.Policy) error {
	set, err := wss.Parse(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return exitcode.WithHint(exitcode.WorkingSet, policy.Check(set),
		`keep its front with "thaw ws combine union FILE --max SIZE", or allow it with --max-share`)
}

// onMount does something with a checkpoint given as MNT/NAME, through the mount's server.
func onMount(ctx context.Context, path string, f func(s storeAPI, name string) error) error {
	ref, err := resolveCheckpoint(path)
	if err != nil {
		return err
	}
	client, err := ref.server(ctx)
	if err != nil {
		return err
	}
	return f(&remoteStore{client}, ref.Name)
}
