package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newCheckCommand(a *app) *cobra.Command {
	var o index.CheckOptions
	cmd := &cobra.Command{
		Use:   "check {STORE | MNT} [NAME...]",
		Short: "Verify a store",
		Long: `Verify a store: its checkpoints, their page maps, the directories and checksums of the
packs. With --read-data every stored byte is read, decoded and compared with its hash.
The last line is the verdict, and says what was checked. The index holds only hints;
the commands that write compare and correct them.

The report says what damage costs: pages or files of a checkpoint, or nothing, because
no checkpoint refers to it, there is another copy, or it can be made again. Everything
that is not damaged stays readable.

With NAME it looks at these checkpoints, and at the packs that they refer to, alone.

With --repair damaged pages are restored from another pack, from a segment, or from
the exports and memory files that --from names (it may be repeated). Pages are
identified by their hashes, nothing is guessed. A page that is not found stays
damaged.

With --rebuild-index the index (STORE/index) is deleted first and made again from the
packs and roots, which hold everything.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.Corrupt, exitcode.Version,
				exitcode.ReadOnly),
		Example: `  thaw check /srv/store --read-data
  thaw check /srv/store --repair --from /backup/web-1`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.From) > 0 && !o.Repair {
				return exitcode.Errorf(exitcode.Usage, "check: --from is for --repair")
			}
			return named(runCheck(cmd.Context(), a, args, o), "check %s", strings.Join(args, " "))
		},
	}
	cmd.Flags().BoolVar(&o.ReadData, "read-data", false, "read and verify every byte")
	cmd.Flags().BoolVar(&o.Repair, "repair", false, "restore damaged pages from other copies")
	cmd.Flags().StringArrayVar(&o.From, "from", nil,
		"`directory` of an export, or memory file, to restore damaged pages from")
	cmd.Flags().BoolVar(&o.Rebuild, "rebuild-index", false, "make the index again from the packs")
	return cmd
}

func runCheck(ctx context.Context, a *app, args []string, o index.CheckOptions) (err error) {
	place, err := access.Find(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	store := place.Store
	if o.Names = place.Names; len(o.Names) > 0 && (o.Repair || o.Rebuild) {
		return exitcode.Errorf(exitcode.Usage, "--repair and --rebuild-index work on a whole store: leave out %s",
			strings.Join(o.Names, " "))
	}
	if err := access.Answering(ctx, o.From...); err != nil {
		return err
	}
	check := func(s *index.Store) (index.CheckReport, error) {
		p := a.progress()
		defer p.done()
		o.Progress = p.set
		return s.Check(ctx, o)
	}
	for i, path := range o.From {
		if o.From[i], err = filepath.Abs(path); err != nil {
			return err
		}
	}
	var report index.CheckReport
	if o.Rebuild || o.Repair {
		report, err = access.Write(ctx, a.stores, store, index.OpenOptions{}, check)
	} else {
		report, err = access.Read(ctx, a.stores, store, check)
	}
	if err != nil {
		return err
	}
	if len(report.Repaired) > 0 {
		a.silent = access.Follow(ctx, store)
	} else {
		a.silent = access.Heed(ctx, store)
	}
	if a.json {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else {
		printCheck(a, report)
	}
	hint := `name exports that may have it with --from; "thaw export --salvage" writes the rest of it`
	switch {
	case report.OK():
		return nil
	case report.Harmless():
		return exitcode.WithHint(exitcode.Corrupt, errors.New("damage was found that costs "+nothing(report)),
			`"thaw check --repair" repairs it, "thaw gc" removes what no checkpoint refers to`)
	case !o.Repair:
		hint = `"thaw check --repair [--from DIR]" restores pages that have another copy; ` +
			`reading the others is an I/O error, and "thaw export --salvage" writes the good ones`
	}
	return exitcode.WithHint(exitcode.Corrupt, errors.New(losses(report)), hint)
}

// losses says in a few words what the damage costs.
func losses(r index.CheckReport) string {
	return fmt.Sprintf("damage costs %s of %s checkpoints something", count(len(r.Lost)),
		count(r.Checkpoints))
}

// nothing says of what harmless damage costs nothing.
func nothing(r index.CheckReport) string {
	if len(r.Names) > 0 {
		return "these checkpoints nothing; others were not looked at"
	}
	return "no checkpoint anything"
}

func printCheck(a *app, r index.CheckReport) {
	for _, m := range r.Repaired {
		where := strings.TrimSpace(m.Checkpoint + " " + m.Pack)
		if m.Pages > 0 {
			where += fmt.Sprintf(": %s pages", count(m.Pages))
		}
		a.printf("repaired: %s: %s\n", where, m.What)
	}
	for _, p := range r.Problems {
		kind := "damaged"
		if p.Harmless {
			kind = "damaged, costs nothing"
		}
		a.printf("%s: %s: %s\n", kind, strings.TrimSpace(p.Checkpoint+" "+p.Pack), p.What)
	}
	for _, l := range r.Lost {
		a.printf("lost: %s: %s\n", l.Checkpoint, lossWords(l))
	}
	if r.Rebuilt {
		a.printf("the index was made again\n")
	}
	if r.NoIndex != "" {
		a.printf("there is no index on disk: %s\n", r.NoIndex)
	}
	read, verdict := "", losses(r)
	if r.PagesRead > 0 {
		read = fmt.Sprintf(", %s read", count(r.PagesRead))
	}
	if r.OK() {
		verdict = "no damage"
	} else if r.Harmless() {
		verdict = "damage that costs " + nothing(r)
	}
	a.printf("%s checkpoints, %s packs, %s stored pages%s: %s (%s)\n", count(r.Checkpoints),
		count(r.Packs), count(r.Pages), read, verdict, r.Covers)
}

// lossWords says what one checkpoint has lost.
func lossWords(l index.Loss) string {
	if l.All {
		return "it cannot be read at all"
	}
	var words []string
	if l.Pages > 0 {
		words = append(words, fmt.Sprintf("%s pages, from page %d on", count(l.Pages), l.First[0]))
	}
	if len(l.Files) > 0 {
		words = append(words, "of "+strings.Join(l.Files, ", "))
	}
	return strings.Join(words, ", and parts ")
}
