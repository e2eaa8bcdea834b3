package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newRepackCommand(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "repack STORE [NAME...]",
		Short: "Store pages by how they are used, so that they take less space",
		Long: `Store the pages of a store by how they are used. An import is quick, and stores each page
so that it can be read alone. Repacking finds out which pages machines use, and stores

  hot    those in the working set of any checkpoint: quicker to read,
  warm   those beside hot ones, or that a machine has asked for: as the import did,
  cold   all others: compressed together with pages that are like them.

A cold page takes a fifth to a third less space, and longer to read. Checkpoints of one
machine have different versions of the pages that change: those that are cold and like
one another are stored together, so that a changed page takes little more than its change.
With NAMEs only the
packs that these checkpoints refer to are repacked. A pack of which little would be won is
left as it is, so that a second run does nothing. When a working set is recorded or
set later, the next run stores its pages as hot ones.

"thaw ls" shows what is repacked, and about what the rest would save. --dry-run looks at
each page. The server of a mount repacks its store by itself while nothing is asked for
(see "thaw mount --repack").

It may be interrupted at any time: packs are written again one after another, and each is
read back before it takes the place of the old one. Machines that run from the mount go
on; other commands that write to the store get their turn after each pack. Space is freed
when no machine uses the old pack any more.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.NotFound, exitcode.NoSpace,
				exitcode.Corrupt, exitcode.ReadOnly),
		Example: `  thaw repack /srv/store --dry-run
  thaw repack /srv/store web-1`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runRepack(cmd.Context(), a, args, dryRun), "repack %s", args[0])
		},
	}
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "say what would be won, change nothing")
	cmd.ValidArgsFunction = completeNames
	return cmd
}

func runRepack(ctx context.Context, a *app, args []string, dryRun bool) error {
	place, err := access.Find(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	store, names := place.Store, place.Names
	known, err := a.lessons(ctx, store)
	if err != nil {
		return err
	}
	p := a.progress()
	defer p.done()
	o := index.RepackOptions{Names: names, DryRun: dryRun, Seen: known.seen, Progress: p.set}
	report, err := repack(ctx, a, store, o, false)
	p.done()
	if report.Repacked > 0 && !dryRun {
		closeIdle(ctx, a, store)
		a.silent = access.Follow(ctx, store)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			index.RepackReport
			FreedBytes int64 `json:"freed_bytes"`
		}{report, report.FreedBytes()})
	}
	printRepacked(a, report)
	return nil
}

func printRepacked(a *app, r index.RepackReport) {
	if r.Repacked == 0 {
		a.printf("nothing to repack: the pages of %s packs are stored as they are used, or little would be won\n",
			count(r.Packs))
		return
	}
	verb, freed := "repacked", "freed "+size(r.FreedBytes())
	if r.DryRun {
		verb, freed = "would repack", "would free about "+size(max(r.FreedBytes(), 0))
	} else if r.FreedBytes() < 0 {
		freed = "took " + size(-r.FreedBytes()) + " more, to be quicker,"
	}
	a.printf("%s %s of %s packs (%s hot, %s warm, %s cold pages; %s dead ones dropped): %s of %s\n", verb,
		count(r.Repacked), count(r.Packs), count(r.HotPages), count(r.WarmPages), count(r.ColdPages),
		count(r.DroppedPages), freed, size(r.BytesBefore))
	if r.GatheredPages > 0 {
		verb := map[bool]string{false: "stored", true: "would store"}[r.DryRun]
		a.printf("%s %s pages beside other versions of theirs\n", verb, count(r.GatheredPages))
	}
}

// repack repacks a store, a pack at a time, and gives it to other commands that want to write to it: a pack
// that was begun is then begun again. Once it has begun, also for others, it waits for them as long as they
// take: they have the store because it was given to them.
func repack(ctx context.Context, a *app, store string, o index.RepackOptions, begun bool) (
	total index.RepackReport, err error,
) {
	o.Memory = index.NewRepackMemory()
	if !o.DryRun {
		o.Most = 1
	}
	work := func(s *index.Store) (index.RepackReport, error) {
		begun = true
		return s.Repack(ctx, o)
	}
	var damaged error
	for {
		if err := access.LetOthers(ctx, store, index.YieldWriters); err != nil {
			return total, err
		}
		report, err := access.Write(ctx, a.stores, store, index.OpenOptions{Yield: index.YieldWriters}, work)
		switch {
		case errors.Is(err, index.ErrGaveWay), begun && errors.Is(err, index.ErrLocked):
			continue
		case err != nil && report.Damaged == 0:
			total.Add(report)
			return total, errors.Join(err, damaged)
		}
		total.Add(report)
		damaged = errors.Join(damaged, err)
		if report.Left == 0 {
			return total, damaged
		}
	}
}
