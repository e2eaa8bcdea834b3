package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newInspectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect STORE NAME",
		Short: "Show all that is known of a checkpoint",
		Long: `Show the details of a checkpoint: its memory, files, working set, and the packs that
its pages lie in.

With --json: what "info.json" on the mount holds, and the packs.` +
			exitStatus(exitcode.NotStore, exitcode.NotFound),
		Example: `  thaw inspect /srv/store web-1`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runInspect(cmd.Context(), a, args[0], args[1]), "inspect %s", args[1])
		},
	}
}

func runInspect(ctx context.Context, a *app, store, name string) error {
	d, err := access.Read(ctx, a.stores, store, func(s *index.Store) (index.Details, error) {
		return s.Inspect(ctx, name)
	})
	if err != nil {
		return err
	}
	a.silent = access.Heed(ctx, store)
	if a.json {
		return a.printJSON(d)
	}
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
	return nil
}
