package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newRmCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm {STORE | MNT} NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove checkpoints",
		Long: `Remove checkpoints from a store. "thaw gc" frees their space. A checkpoint whose
memory is open on the mount is not removed, and none is removed while the mount's
server does not answer. With --json: {"removed": [NAME, ...]}.` +
			exitStatus(exitcode.Partial, exitcode.NotStore, exitcode.Locked, exitcode.NotFound,
				exitcode.Busy, exitcode.ServerGone, exitcode.ReadOnly),
		Example: `  thaw rm /srv/store web-1 web-2 && thaw gc /srv/store
  thaw rm /mnt/thaw/web-*`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := access.Find(cmd.Context(), args[0], args[1:]...)
			if err == nil && len(p.Names) == 0 {
				_, err = p.One()
			}
			if err != nil {
				return named(err, "rm")
			}
			return runRm(cmd.Context(), a, p.Store, p.Names)
		},
	}
}

func runRm(ctx context.Context, a *app, store string, names []string) error {
	var failed []error
	removed, err := access.Write(ctx, a.stores, store, index.OpenOptions{},
		func(s *index.Store) (removed []string, err error) {
			for _, name := range names {
				if err := removeFrom(ctx, s, store, name); err != nil {
					failed = append(failed, fmt.Errorf("rm %s: %w", name, err))
					continue
				}
				a.note("removed %s", name)
				removed = append(removed, name)
			}
			a.forgetLessons(ctx, store, s)
			return removed, nil
		})
	err = errors.Join(errors.Join(failed...), named(err, "rm"))
	if len(removed) == 0 {
		return err
	}
	a.silent = access.Follow(ctx, store)
	if a.json {
		if err := a.printJSON(map[string][]string{"removed": removed}); err != nil {
			return err
		}
	}
	return exitcode.With(exitcode.Partial, err)
}

// removeFrom removes a checkpoint, unless its memory is open on the mount.
func removeFrom(ctx context.Context, s *index.Store, store, name string) error {
	if err := letGo(ctx, store, name); err != nil {
		return err
	}
	return s.Remove(ctx, name)
}
