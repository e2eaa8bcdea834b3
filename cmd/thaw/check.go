package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newCheckCommand(a *app) *cobra.Command {
	var o index.CheckOptions
	cmd := &cobra.Command{
		Use:   "check STORE",
		Short: "Verify a store",
		Long: `Verify a store: its checkpoints, their page maps, the directories and checksums of the
packs, and that the index agrees with them. With --read-data every stored byte is
read, decoded and compared with its hash.

With --rebuild-index the index (STORE/index) is thrown away first and made again from
the packs and checkpoints, which hold everything.

What is undamaged stays readable where damage is found.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.Corrupt, exitcode.Version),
		Example: `  thaw check /srv/store --read-data
  thaw check /srv/store --rebuild-index`,
		GroupID: groupStore,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCheck(cmd.Context(), a, args[0], o)
		},
	}
	cmd.Flags().BoolVar(&o.ReadData, "read-data", false, "read and verify every byte")
	cmd.Flags().BoolVar(&o.Rebuild, "rebuild-index", false, "make the index again from the packs")
	return cmd
}

func runCheck(ctx context.Context, a *app, store string, o index.CheckOptions) error {
	var report index.CheckReport
	check := func(s *index.Store) (err error) {
		p := a.progress()
		defer p.done()
		o.Progress = p.set
		report, err = s.Check(ctx, o)
		return err
	}
	var err error
	if o.Rebuild {
		err = a.writeStore(ctx, store, index.OpenOptions{}, check)
	} else {
		err = a.readStore(ctx, store, check)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", store, err)
	}
	if a.json {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else {
		printCheck(a, report)
	}
	if n := len(report.Problems); n > 0 {
		return exitcode.WithHint(exitcode.Corrupt, fmt.Errorf("check %s: %d problems", store, n),
			"what is damaged answers with an I/O error; remove it, or import it again under another name")
	}
	return nil
}

func printCheck(a *app, r index.CheckReport) {
	for _, p := range r.Problems {
		where := p.Checkpoint
		if p.Pack != "" {
			where += " " + p.Pack
		}
		a.printf("damaged: %s: %s\n", where, p.What)
	}
	if r.Rebuilt {
		a.printf("the index was made again\n")
	}
	if r.NoIndex != "" {
		a.printf("the index was not checked, and imports wait until there is room: %s\n", r.NoIndex)
	}
	a.printf("%s checkpoints, %s packs, %s stored pages", count(r.Checkpoints), count(r.Packs),
		count(r.Pages))
	if r.PagesRead > 0 {
		a.printf(", %s read", count(r.PagesRead))
	}
	if r.OK() {
		a.printf(": no damage")
	}
	a.printf("\n")
}
