package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newLsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls STORE",
		Aliases: []string{"list"},
		Short:   "List the checkpoints of a store",
		Long: `List the checkpoints of a store. For each: its memory, the pages that are not zero, by
how much its import made the store grow, the size of its segment, and the pages of its
working set.

With --json: an array of what "info.json" on the mount holds.` +
			exitStatus(exitcode.NotStore, exitcode.Version),
		Example: `  thaw ls /srv/store
  thaw ls /srv/store --json | jq -r '.[].name'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runLs(cmd.Context(), a, args[0]), "ls %s", args[0])
		},
	}
}

func runLs(ctx context.Context, a *app, store string) error {
	list, err := access.Read(ctx, a.stores, store, func(s *index.Store) ([]index.Checkpoint, error) {
		return s.List(ctx)
	})
	if err != nil {
		return err
	}
	a.silent = access.Heed(ctx, store)
	if a.json {
		if list == nil {
			list = []index.Checkpoint{} // an empty store is [], not null
		}
		return a.printJSON(list)
	}
	rows := make([][]string, len(list))
	for i, c := range list {
		set := "-"
		if c.WorkingSet != nil {
			set = count(c.WorkingSet.Pages)
		}
		rows[i] = []string{
			c.Name, size(c.MemoryBytes), count(c.DataPages), size(c.StoredBytes), size(c.SegmentBytes),
			set, c.Created.UTC().Format("2006-01-02 15:04"),
		}
	}
	a.table([]string{"NAME", ">MEMORY", ">PAGES", ">STORED", ">SEGMENT", ">WORKING SET",
		"CREATED (UTC)"}, rows)
	return nil
}
