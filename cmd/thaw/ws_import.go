package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/importer"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

func newWSImportCommand(a *app) *cobra.Command {
	var share maxShareFlag
	cmd := &cobra.Command{
		Use:   "import {MNT | STORE} NAME FILE",
		Short: "Set a checkpoint's working set from a file",
		Long: `Set the working set of a checkpoint from a file in the format that
"thaw ws show --text" prints and MNT/NAME/working-set has. It replaces the one that was
there, and must fit the image. On a mount it serves from the next restore on: its pages
get a segment of their own for the prefetch. The blocks that single faults bring keep the
order of the import; to lay them out anew, export, put the set beside "memory", import.

A set beyond --max-share is refused: to bring so much before the machine runs makes a
restore slower, not faster. "thaw ws combine union FILE --max SIZE" keeps its front.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.NotFound,
				exitcode.WorkingSet),
		Example: `  thaw ws import /mnt/thaw/web-1 web-1.ws
  thaw ws import /srv/store web-1 web-1.ws`,
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: completeNameAndFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			target := args[:len(args)-1]
			return named(runWSImport(cmd.Context(), a, target, args[len(args)-1], share), "ws import")
		},
	}
	share.addTo(cmd.Flags(), "refuse a set")
	return cmd
}

func runWSImport(ctx context.Context, a *app, target []string, file string,
	share maxShareFlag) error {
	if err := access.Answering(ctx, file); err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return exitcode.WithHint(exitcode.NotFound, err,
			"FILE is a working set, such as one that \"thaw ws show --text\" printed")
	}
	if err != nil {
		return err
	}
	policy, err := share.policy()
	if err != nil {
		return err
	}
	store, v, err := wsTarget(ctx, target)
	if err != nil {
		return err
	}
	cp, err := a.setWorkingSet(ctx, store, v, text, policy)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(cp)
	}
	a.note("the working set of %s is now %s (%s pages in %s runs)", cp.Name,
		size(int64(cp.WorkingSet.Pages)*index.PageSize), count(cp.WorkingSet.Pages),
		count(cp.WorkingSet.Runs))
	return nil
}

// wsTarget finds the store and the checkpoint that arguments name: MNT/NAME, STORE/NAME, MNT NAME or
// STORE NAME.
func wsTarget(ctx context.Context, target []string) (store string, v index.Version, err error) {
	p, err := access.Find(ctx, target[0], target[1:]...)
	if err != nil {
		return "", v, err
	}
	if len(p.Names) == 0 && !index.IsStore(p.Store) {
		return "", v, access.NotOnMount(target[0])
	}
	v.Name, err = p.One()
	return p.Store, v, err
}

// setWorkingSet makes text the working set of a checkpoint, which must be the one of v if that says
// more than a name. A set beyond the policy is refused.
func (a *app) setWorkingSet(ctx context.Context, store string, v index.Version, text []byte,
	policy wss.Policy) (cp index.Checkpoint, err error) {
	set := func(s *index.Store) (cp index.Checkpoint, err error) {
		d, err := s.Inspect(ctx, v.Name)
		if err != nil {
			return cp, err
		}
		if v.ID != "" && d.ID != v.ID {
			return cp, fmt.Errorf("working set for %s: %w", v.Name, index.ErrChanged)
		}
		set, err := importer.ParseWorkingSet(text, d.MemoryBytes)
		if err != nil {
			return cp, exitcode.With(exitcode.WorkingSet, fmt.Errorf("working set for %s: %w", v.Name, err))
		}
		if err := policy.Check(set); err != nil {
			return cp, exitcode.WithHint(exitcode.WorkingSet, err, `keep its front with `+
				`"thaw ws combine union FILE --max SIZE", or allow it with --max-share`)
		}
		return s.SetTimedWorkingSet(ctx, v.Name, text, importer.Runs(set), importer.Wanted(set))
	}
	if cp, err = access.Write(ctx, a.stores, store, index.OpenOptions{}, set); err == nil {
		a.silent = access.Follow(ctx, store)
	}
	return cp, err
}
