package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/index"
)

// complete tells shells which values a flag has.
func complete(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag,
		cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // there is no such flag
	}
}

// completeNames completes the arguments of a command: a directory, then checkpoints that the store has.
func completeNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return namesIn(cmd.Context(), args[0]), cobra.ShellCompDirectiveNoFileComp
}

// namesIn returns the checkpoints of a store, for a shell that completes a command; none if they cannot be
// had.
func namesIn(ctx context.Context, path string) (names []string) {
	p, err := access.Find(ctx, path)
	if err != nil {
		return nil
	}
	quiet := access.Stores{Note: func(string, ...any) {}}
	all, err := access.Read(ctx, quiet, p.Store, func(s *index.Store) ([]index.Checkpoint, error) {
		return s.List(ctx)
	})
	if err != nil {
		return nil
	}
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}
