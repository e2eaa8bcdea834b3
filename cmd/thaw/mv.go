package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newMvCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "mv {STORE NAME | MNT/NAME} NEW",
		Aliases: []string{"rename"},
		Short:   "Give a checkpoint another name",
		Long: `Give a checkpoint the name NEW, which must be free. Its memory, files and working set stay,
and what is learned of it. A checkpoint whose memory is open on the mount is not renamed.

If it is killed, the checkpoint may have both names: run it again, or remove one of them.
With --json: the checkpoint's info.json.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.NotFound, exitcode.Exists, exitcode.BadName,
				exitcode.Busy, exitcode.ServerGone, exitcode.ReadOnly),
		Example: `  thaw mv /srv/store web-1 web-1.old
  thaw mv /mnt/thaw/web-1 web-1.old`,
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: completeNameAndFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			last := len(args) - 1
			return named(runMv(cmd.Context(), a, args[:last], args[last]), "mv")
		},
	}
}

func runMv(ctx context.Context, a *app, what []string, to string) error {
	p, err := access.Find(ctx, what[0], what[1:]...)
	if err != nil {
		return err
	}
	from, err := p.One()
	if err != nil {
		return err
	}
	if err := index.CheckName(to); err != nil {
		return err
	}
	if err := letGo(ctx, p.Store, from); err != nil {
		return err
	}
	c, err := access.Write(ctx, a.stores, p.Store, index.OpenOptions{},
		func(s *index.Store) (index.Checkpoint, error) { return s.Rename(ctx, from, to) })
	if err != nil {
		return err
	}
	a.silent = access.Follow(ctx, p.Store)
	if a.json {
		return a.printJSON(c)
	}
	a.note("%s is called %s now", from, to)
	return nil
}
