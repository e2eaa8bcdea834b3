package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

func newTopCommand(a *app) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "top {MNT | STORE} [NAME]",
		Short: "Watch the machines of a mount",
		Long: `Show what each machine of a mount does now, a line for each, again and again: how many of
its memory files are open; how far its restore is; pages a second that it waited for, and
bytes a second that were brought ahead of it; the share of its memory that is in the page
cache, which it reads without the server; the share of the time in which it waited,
and its longest wait since it was restored; errors.

A line is a checkpoint's own memory with that of its clones, or one clone. Those that are
not open and do nothing are left out. It ends with Ctrl-C. With --json one object a line:
what "stats.json" holds, by name.` +
			exitStatus(exitcode.NotFound, exitcode.ServerGone),
		Example:           `  thaw top /mnt/thaw`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.watch = true
			return named(runStats(cmd.Context(), a, args, o), "top")
		},
	}
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "time between two looks")
	return cmd
}

// watcher prints what happened between two looks at a mount.
type watcher struct {
	a       *app
	inPlace bool // the terminal is cleared before each print
	last    map[string]sample
	at      time.Time
}

// sample is one look at one machine.
type sample struct {
	counters
	at time.Time
}

func newWatcher(a *app) *watcher {
	f, ok := a.out.w.(*os.File)
	return &watcher{a: a, inPlace: ok && term.IsTerminal(int(f.Fd()))}
}

// show prints a look. The first has nothing to be compared with: its rates are since each machine's restore.
func (w *watcher) show(stats map[string]json.RawMessage, now time.Time) error {
	looks := make(map[string]sample, len(stats))
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(stats)) {
		s := sample{at: now}
		if err := json.Unmarshal(stats[name], &s.counters); err != nil {
			return fmt.Errorf("stats.json of %s: %w", name, err)
		}
		looks[name] = s
		if row := w.row(name, s); row != nil {
			rows = append(rows, row)
		}
	}
	w.last, w.at = looks, now
	if w.inPlace {
		w.a.printf("\x1b[H\x1b[2J")
	}
	w.a.table([]string{"MACHINE", ">OPEN", ">RESTORE", ">WAITED/S", ">BROUGHT/S", ">CACHED", ">STALLED",
		">LONGEST", ">ERRORS"}, rows)
	if len(rows) == 0 {
		w.a.printf("no machine is open, and none was restored meanwhile\n")
	}
	return nil
}

// row is the line of a machine; nil: it does nothing.
func (w *watcher) row(name string, s sample) []string {
	before, known := w.last[name]
	seconds := s.at.Sub(before.at).Seconds()
	if !known || before.Origin != s.Origin { // it was made cold meanwhile, and counts from 0
		before = sample{}
		seconds = s.Stalls.Elapsed
	}
	if seconds <= 0 || s.Open == 0 && s.Opens == before.Opens && s.LazyPages == before.LazyPages {
		return nil
	}
	rate := func(now, then uint64) float64 { return float64(now-min(now, then)) / seconds }
	brought := rate(s.PrefetchedPages+s.PushedPages, before.PrefetchedPages+before.PushedPages)
	return []string{
		name, count(s.Open), s.progress(), count(uint64(rate(s.LazyPages, before.LazyPages))),
		size(int64(brought * index.PageSize)), s.cached(),
		fmt.Sprintf("%.1f %%", 100*min(1, max(0, s.StallSeconds-before.StallSeconds)/seconds)),
		fmt.Sprintf("%.1f ms", s.Stalls.Longest*1e3), count(s.Errors),
	}
}

// cached is the share of its memory that is in the page cache, as far as the server knows.
func (c *counters) cached() string {
	return fmt.Sprintf("%.0f %%", 100*float64(c.ResidentPages)/float64(max(1, c.MemoryPages)))
}

// progress says how far the restore of a machine is.
func (c *counters) progress() string {
	p := c.Playout
	switch {
	case p == nil && c.PrefetchedPages == 0:
		return "lazy"
	case p == nil || p.Done:
		return "done"
	}
	pages := max(1, p.HeadPages+p.TailPages)
	return fmt.Sprintf("%.0f %%", 100*min(1, float64(c.PrefetchedPages)/float64(pages)))
}

// readMachines reads the counters of checkpoints and of their clones: a clone's name is NAME/ID, and the
// numbers of a checkpoint that has clones are those of all of them together.
func readMachines(m access.Mount) (map[string]json.RawMessage, error) {
	stats, err := readStats(m)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Collect(maps.Keys(stats)) {
		clones, err := os.ReadDir(filepath.Join(m.Root, name, "clones"))
		if err != nil {
			continue // removed meanwhile
		}
		for _, clone := range clones {
			text, err := os.ReadFile(filepath.Join(m.Root, name, "clones", clone.Name(), "stats.json"))
			if err == nil {
				stats[name+"/"+clone.Name()] = text
			}
		}
	}
	return stats, nil
}

// look reads what a mount does now.
func look(ctx context.Context, m access.Mount, machines bool) (map[string]json.RawMessage, error) {
	return access.Bounded(ctx, m.Root, func() (map[string]json.RawMessage, error) {
		if machines {
			return readMachines(m)
		}
		return readStats(m)
	})
}
