package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/native"
	"github.com/thawfs/thaw/index"
)

func newInspectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect {STORE | MNT} [NAME...]",
		Short: "Show all that is known of a checkpoint",
		Long: `Show the details of a checkpoint: its memory, files, working set, and the packs that
its pages lie in. Without NAME, of each checkpoint.

Of a checkpoint that a VMM can go on from, "restore" is the command or the request to
the VMM's API that restores it from the mount: for DIR, if the store is not mounted, the
directory NAME of its mount. "thaw help formats" says more.

With --json: what "info.json" on the mount holds, the packs, and "restore": {"vmm": ...,
"ways": [{"for": ..., "command": ..., "request": ..., "note": ...}]}, the best way first; of
one checkpoint that is named an object, else an array of them.` +
			exitStatus(exitcode.NotStore, exitcode.NotFound),
		Example: `  thaw inspect /srv/store web-1
  thaw inspect /mnt/thaw/web-1`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runInspect(cmd.Context(), a, args), "inspect %s", strings.Join(args, " "))
		},
	}
}

func runInspect(ctx context.Context, a *app, args []string) error {
	p, err := access.Find(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	found, err := access.Read(ctx, a.stores, p.Store, func(s *index.Store) ([]index.Details, error) {
		return inspectAll(ctx, s, p.Names)
	})
	if err != nil {
		return err
	}
	all := []inspection{}
	for _, d := range found {
		all = append(all, inspection{d, native.RestoreOf(&d.Checkpoint, mountedAt(p.Store, d.Name))})
	}
	a.silent = access.Heed(ctx, p.Store)
	switch {
	case a.json && len(p.Names) == 1:
		return a.printJSON(all[0])
	case a.json:
		return a.printJSON(all)
	}
	for i, d := range all {
		if i > 0 {
			a.printf("\n")
		}
		printDetails(a, d.Details)
		a.printRestore(d.Restore)
	}
	return nil
}

// inspection is what inspect prints of a checkpoint with --json.
type inspection struct {
	index.Details
	Restore *native.Restore `json:"restore,omitempty"`
}

// mountedAt is the directory of a checkpoint on the mount of a store; DIR if it is not mounted.
func mountedAt(store, name string) string {
	if s, ok, err := index.ServerOf(store); err == nil && ok && s.Mount != "" {
		return filepath.Join(s.Mount, name)
	}
	return "DIR"
}

// printRestore prints how a checkpoint is restored. The commands are whole lines, to be copied.
func (a *app) printRestore(r *native.Restore) {
	if r == nil {
		return
	}
	for _, way := range r.Ways {
		a.printf("\nrestore by %s:\n  %s\n", way.For, way.Command)
		if way.Note != "" {
			a.printf("  (%s)\n", way.Note)
		}
	}
}

// inspectAll inspects the checkpoints with these names; all, where there are none.
func inspectAll(ctx context.Context, s *index.Store, names []string) ([]index.Details, error) {
	every := len(names) == 0
	if every {
		list, err := s.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			names = append(names, c.Name)
		}
	}
	all := []index.Details{}
	for _, name := range names {
		d, err := s.Inspect(ctx, name)
		switch {
		case err == nil:
			all = append(all, d)
		case !every || !errors.Is(err, index.ErrNotFound): // else it was removed meanwhile
			return nil, err
		}
	}
	return all, nil
}

func printDetails(a *app, d index.Details) {
	var rows lines
	rows.add("name", "%s", d.Name)
	rows.add("id", "%s", d.ID)
	rows.add("created", "%s", d.Created.UTC().Format(time.RFC3339))
	rows.add("memory", "%s (%s pages, %s of them zero)", size(d.MemoryBytes),
		count(d.DataPages+d.ZeroPages), count(d.ZeroPages))
	rows.add("stored", "%s for %s pages that the store did not have", size(d.StoredBytes),
		count(d.NewPages))
	rows.add("layout", "%s", d.Layout)
	rows.add("page map", "%s leaves, root of %s", count(d.Leaves), size(d.RootBytes))
	if d.Parent != "" {
		rows.add("parent", "%s", d.Parent)
	}
	if w := d.WorkingSet; w != nil {
		rows.add("working set", "%s pages (%s zero) in %s runs; segment of %s in %s frames",
			count(w.Pages), count(w.ZeroPages), count(w.Runs), size(d.SegmentBytes), count(w.Frames))
	}
	for _, f := range slices.Sorted(maps.Keys(d.Files)) {
		rows.add("file "+f, "%s", size(d.Files[f]))
	}
	for _, p := range d.Packs {
		rows.add(fmt.Sprintf("pack %d.%d", p.Number, p.Generation), "%s pages of it, %s in all",
			count(p.Pages), size(p.Bytes))
	}
	if len(d.Guest) > 0 {
		rows.add("guest", "%s", strings.TrimSpace(string(d.Guest)))
	}
	a.printLines(14, rows)
}
