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
working set; whether "thaw repack" was run on its packs (yes, no, part), and about how
much that would save of the others: a guess by their sizes, which "thaw repack --dry-run"
makes better. Checkpoints that share packs share what is saved.

With --json: an array of what "info.json" on the mount holds, and "packed".` +
			exitStatus(exitcode.NotStore, exitcode.Version),
		Example: `  thaw ls /srv/store
  thaw ls /srv/store --json | jq -r '.[].name'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runLs(cmd.Context(), a, args[0]), "ls %s", args[0])
		},
	}
}

// listed is a checkpoint, and how it is stored.
type listed struct {
	index.Checkpoint
	Packed index.Packed `json:"packed"`
}

func listStore(ctx context.Context, s *index.Store) ([]listed, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	packed, err := s.Packed(ctx, all)
	if err != nil {
		return nil, err
	}
	out := make([]listed, len(all))
	for i, c := range all {
		out[i] = listed{c, packed[i]}
	}
	return out, nil
}

// wins is what repacking saves, for people.
func wins(p index.Packed) string {
	if p.Wins == 0 {
		return "-"
	}
	return size(p.Wins)
}

func runLs(ctx context.Context, a *app, store string) error {
	list, err := access.Read(ctx, a.stores, store, func(s *index.Store) ([]listed, error) {
		return listStore(ctx, s)
	})
	if err != nil {
		return err
	}
	a.silent = access.Heed(ctx, store)
	if a.json {
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
			set, string(c.Packed.State), wins(c.Packed), c.Created.UTC().Format("2006-01-02 15:04"),
		}
	}
	a.table([]string{"NAME", ">MEMORY", ">PAGES", ">STORED", ">SEGMENT", ">WORKING SET",
		"PACKED", ">WOULD SAVE", "CREATED (UTC)"}, rows)
	return nil
}
