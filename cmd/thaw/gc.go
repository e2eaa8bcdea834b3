package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newGCCommand(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "gc {STORE | MNT}",
		Short: "Free the space of removed checkpoints",
		Long: `Free the space of removed checkpoints and of imports that were killed: packs that no
checkpoint refers to are deleted, and packs with many dead pages are rewritten without
them. It may be interrupted at any time. The store may be mounted and in use
meanwhile.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.NoSpace, exitcode.ReadOnly),
		Example: `  thaw gc /srv/store --dry-run
  thaw gc /srv/store`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDirs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runGC(cmd.Context(), a, args[0], dryRun), "gc %s", args[0])
		},
	}
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false,
		"say what would be freed, change nothing")
	return cmd
}

func runGC(ctx context.Context, a *app, path string, dryRun bool) error {
	store, err := access.Whole(ctx, path)
	if err != nil {
		return err
	}
	if !dryRun {
		closeIdle(ctx, a, store)
	}
	collect := func(s *index.Store) (index.GCReport, error) {
		p := a.progress()
		defer p.done()
		report, err := s.GC(ctx, index.GCOptions{DryRun: dryRun, Progress: p.set})
		if !dryRun {
			a.forgetLessons(ctx, store, s)
		}
		return report, err
	}
	report, err := access.Write(ctx, a.stores, store, index.OpenOptions{}, collect)
	if err != nil {
		return err
	}
	if !dryRun {
		a.silent = access.Follow(ctx, store)
	}
	if a.json {
		return a.printJSON(report)
	}
	verb := "freed"
	if report.DryRun {
		verb = "would free"
	}
	a.printf("%s %s: %s packs removed, %s rewritten, %s pages dropped; %s dead bytes stay\n", verb,
		size(report.FreedBytes), count(report.RemovedPacks), count(report.RewrittenPacks),
		count(report.DroppedPages), size(report.DeadBytes))
	return nil
}

// closeIdle asks the server of a store to close images that nobody has open, which would hold the
// space of removed packs. Open images stay readable during a gc.
func closeIdle(ctx context.Context, a *app, store string) {
	server, err := access.Server(ctx, store)
	if server != nil {
		err = server.CloseIdle(ctx)
	}
	if err != nil {
		a.warn(fmt.Sprintf("images that nobody uses may still hold some space: %v", err))
	}
}
