package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/importer"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

type wsCombineOptions struct {
	out     string
	sources []string
	max     sizeFlag
}

// combineOps are the operations of `thaw ws combine`.
func combineOps() map[string]func(...*wss.Set) (*wss.Set, error) {
	return map[string]func(...*wss.Set) (*wss.Set, error){
		"union": wss.Union, "intersection": wss.Intersection,
		"difference": wss.Difference, "rank": wss.Rank,
	}
}

func newWSCombineCommand(a *app) *cobra.Command {
	var o wsCombineOptions
	cmd := &cobra.Command{
		Use:   "combine {union | intersection | difference | rank} PATH...",
		Short: "Make one working set out of several",
		Long: `Make a working set out of those of several runs, or of several sources, of one machine,
and print it as "thaw ws import" takes it. PATH is a working-set file, or a directory
that holds one: a checkpoint on disk, or on a mount (MNT/NAME).

  union         what any of the sets has; sources stay side by side
  intersection  what all of them have: what does not differ from run to run
  difference    what the first has and none of the others
  rank          what any of them has, each page once, those that more sets name first

The first set leads: its pages keep their order, what another one adds follows in its
own. Of one set, all of them are that set, which --source and --max then change: --source
takes only what these sources name (trace, access, read, ...), before anything else;
--max keeps the front, so many bytes, traces before what was read and that before access
bits.` +
			exitStatus(exitcode.NotFound, exitcode.WorkingSet),
		Example: `  thaw ws combine union a.ws b.ws --out both.ws
  thaw ws combine rank run1 run2 run3 --max 64MiB > hot.ws
  thaw ws combine union /mnt/thaw/web-1 --source trace > trace.ws`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runWSCombine(cmd.Context(), a, args[0], args[1:], o), "ws combine %s", args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "write the set into this `file` instead of printing it")
	f.StringArrayVar(&o.sources, "source", nil, "take only this source; may be repeated")
	f.Var(&o.max, "max", "keep so much of the front")
	return cmd
}

func runWSCombine(ctx context.Context, a *app, name string, paths []string,
	o wsCombineOptions) error {
	op, ok := combineOps()[name]
	if !ok {
		return exitcode.Errorf(exitcode.Usage, "there is no such operation; there are %s",
			strings.Join(slices.Sorted(maps.Keys(combineOps())), ", "))
	}
	if err := access.Answering(ctx, paths...); err != nil {
		return err
	}
	var sources []wss.Source
	for _, s := range o.sources {
		sources = append(sources, wss.Source(s))
	}
	var sets []*wss.Set
	for _, path := range paths {
		set, err := readSet(ctx, a, []string{path})
		if err != nil {
			return err
		}
		if len(sources) > 0 {
			set = set.Only(sources...)
		}
		sets = append(sets, set)
	}
	set, err := op(sets...)
	if err != nil {
		return err
	}
	if o.max > 0 {
		set.Runs = importer.Ranked(set)
		set = set.Bound(int64(o.max))
	}
	switch {
	case o.out == "" && a.json:
		return a.printJSON(newWSJSON(set))
	case o.out == "":
		_, err = set.WriteTo(a.stdout)
		return err
	}
	if err := writeSet(o.out, set); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(report.Summarize(set))
	}
	a.note("%s: %s pages (%s) in %s runs", o.out, count(set.Pages()), size(set.Bytes()),
		count(len(set.Runs)))
	return nil
}
