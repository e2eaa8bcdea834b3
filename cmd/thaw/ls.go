package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newLsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls {STORE | MNT} [NAME...]",
		Aliases: []string{"list"},
		Short:   "List the checkpoints of a store",
		Long: `List the checkpoints of a store, or those that are named. For each: its memory, the
pages that are not zero, by how much its import made the store grow, the size of its
segment, and the pages of its working set; whether "thaw repack" was run on its packs
(yes, no, part), and about how much that would save of the others: a guess by their sizes,
which "thaw repack --dry-run" makes better. Checkpoints that share packs share what is saved.

With --json: an array of what "info.json" on the mount holds, and "packed".` +
			exitStatus(exitcode.NotStore, exitcode.Version, exitcode.NotFound),
		Example: `  thaw ls /srv/store
  thaw ls /mnt/thaw/web-1
  thaw ls /srv/store --json | jq -r '.[].name'`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runLs(cmd.Context(), a, args), "ls %s", strings.Join(args, " "))
		},
	}
}

// listed is a checkpoint, and how it is stored.
type listed struct {
	index.Checkpoint
	Packed index.Packed `json:"packed"`
}

// listStore lists the checkpoints with these names; all, where there are none.
func listStore(ctx context.Context, s *index.Store, names []string) ([]listed, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		if all, err = chosen(all, names); err != nil {
			return nil, err
		}
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

// chosen returns the checkpoints that have these names, each once, in the order of all.
func chosen(all []index.Checkpoint, names []string) (some []index.Checkpoint, err error) {
	missing := slices.Clone(names)
	for _, c := range all {
		if slices.Contains(names, c.Name) {
			some = append(some, c)
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == c.Name })
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s: %w", missing[0], index.ErrNotFound)
	}
	return some, nil
}

// wins is what repacking saves, for people.
func wins(p index.Packed) string {
	if p.Wins == 0 {
		return "-"
	}
	return size(p.Wins)
}

func runLs(ctx context.Context, a *app, args []string) error {
	p, err := access.Find(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	list, err := access.Read(ctx, a.stores, p.Store, func(s *index.Store) ([]listed, error) {
		return listStore(ctx, s, p.Names)
	})
	if err != nil {
		return err
	}
	a.silent = access.Heed(ctx, p.Store)
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
