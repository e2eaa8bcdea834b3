package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newRmCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm STORE NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove checkpoints",
		Long: `Remove checkpoints from a store. "thaw gc" frees their space. A checkpoint whose
memory is open on the mount is not removed, and none is removed while the mount's
server does not answer. With --json: {"removed": [NAME, ...]}.` +
			exitStatus(exitcode.Partial, exitcode.NotStore, exitcode.Locked, exitcode.NotFound,
				exitcode.Busy, exitcode.ServerGone, exitcode.ReadOnly),
		Example: `  thaw rm /srv/store web-1 web-2 && thaw gc /srv/store`,
		GroupID: groupStore,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRm(cmd.Context(), a, args[0], args[1:])
		},
	}
}

func runRm(ctx context.Context, a *app, store string, names []string) error {
	removed, failed := []string{}, []error{}
	server, err := storeServer(ctx, store)
	if err != nil {
		return fmt.Errorf("rm: cannot find out what is in use: %w", err)
	}
	err = a.writeStore(ctx, store, index.OpenOptions{}, func(s *index.Store) error {
		for _, name := range names {
			if err := removeFrom(ctx, s, server, name); err != nil {
				failed = append(failed, fmt.Errorf("rm %s: %w", name, err))
				continue
			}
			a.note("removed %s", name)
			removed = append(removed, name)
		}
		a.forgetLessons(ctx, store, s)
		return nil
	})
	if err != nil {
		failed = append(failed, fmt.Errorf("rm: %w", err))
	}
	if len(removed) > 0 {
		a.follow(ctx, store)
	}
	if a.json && len(removed) > 0 {
		if err := a.printJSON(map[string][]string{"removed": removed}); err != nil {
			return err
		}
	}
	if len(failed) > 0 && len(removed) > 0 {
		return exitcode.With(exitcode.Partial, errors.Join(failed...))
	}
	return errors.Join(failed...)
}

// removeFrom removes a checkpoint, unless its memory is open on the mount. server is nil where there
// is none.
func removeFrom(ctx context.Context, s *index.Store, server *control.Client, name string) error {
	if server != nil {
		err := server.Call(ctx, verbRelease, nameRequest{name}, nil)
		if code, _, _ := exitcode.Of(err); err != nil && code != exitcode.NotFound {
			return err
		}
	}
	return s.Remove(ctx, name)
}
