package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
)

type statsOptions struct {
	watch    bool
	buckets  bool
	interval time.Duration
}

func newStatsCommand(a *app) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats {MNT | STORE} [NAME]",
		Short: "Show the live counters of a mount",
		Long: `Show counters of each checkpoint since it was last cold, including its clones: opens;
pages prefetched, and how long the opens waited for them; pages and requests that were
read on demand; pages pushed ahead of demand; seconds in which a reader waited, all of
them and the longest at once; errors. A second table has them since the last restore of
each checkpoint, by the clone that was restored, and the name that the log has for it.

With NAME (or MNT/NAME) one checkpoint. --watch shows what each machine does now, as
"thaw top". With --json: what "stats.json" holds, by name, without the times of all waits,
which --buckets adds; with --watch one object a line. Totals of the server for Prometheus
are in MNT/.thaw/metrics (see "thaw mount --metrics-listen").` +
			exitStatus(exitcode.NotFound, exitcode.ServerGone),
		Example: `  thaw stats /mnt/thaw
  thaw stats /mnt/thaw web-1 --watch`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runStats(cmd.Context(), a, args, o), "stats %s", strings.Join(args, " "))
		},
	}
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "show what happens now, again and again")
	cmd.Flags().BoolVar(&o.buckets, "buckets", false, "with --json: the times of all waits, too")
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "time between two prints")
	return cmd
}

// counters are what is shown of stats.json.
type counters struct {
	Origin          time.Time `json:"origin"`
	Open            int       `json:"open"`
	Opens           uint64    `json:"opens"`
	PrefetchedPages uint64    `json:"prefetched_pages"`
	PrefetchSeconds float64   `json:"prefetch_seconds"`
	LazyPages       uint64    `json:"lazy_pages"`
	LazyRequests    uint64    `json:"lazy_requests"`
	PushedPages     uint64    `json:"pushed_pages"`
	ResidentPages   uint64    `json:"resident_pages"`
	MemoryPages     uint64    `json:"memory_pages"`
	StallSeconds    float64   `json:"stall_seconds"`
	Stalls          struct {
		Longest float64 `json:"longest_seconds"`
		Elapsed float64 `json:"elapsed_seconds"`
	} `json:"stalls"`
	Errors      uint64          `json:"errors"`
	Playout     *fs.Playout     `json:"playout"`
	LastRestore *fs.LastRestore `json:"last_restore"`
}

func runStats(ctx context.Context, a *app, args []string, o statsOptions) error {
	m, err := servedAt(ctx, args)
	if err != nil {
		return err
	}
	if o.watch && o.interval <= 0 {
		return exitcode.Errorf(exitcode.Usage, "--interval must be more than 0")
	}
	w := newWatcher(a)
	for {
		stats, err := look(ctx, m, o.watch)
		switch {
		case err != nil:
		case a.json:
			err = printStatsJSON(a, stats, o)
		case o.watch:
			err = w.show(stats, time.Now())
		default:
			err = printStats(a, stats)
		}
		if err != nil || !o.watch || a.out.failed() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // how a watch is ended
		case <-time.After(o.interval):
		}
	}
}

// servedAt is the place on a mount that the arguments name, also by its store.
func servedAt(ctx context.Context, args []string) (access.Mount, error) {
	if _, on, err := fs.Locate(args[0]); err == nil && on {
		return access.Resolve(ctx, filepath.Join(args...)) // also of a mount that is no store's
	}
	p, err := access.Find(ctx, args[0], args[1:]...)
	if err != nil {
		return access.Mount{}, err
	}
	root, err := access.MountOf(ctx, p)
	if err != nil {
		return access.Mount{}, err
	}
	if len(p.Names) > 0 {
		if _, err := p.One(); err != nil {
			return access.Mount{}, err
		}
		root = filepath.Join(root, p.Names[0])
	}
	return access.Resolve(ctx, root)
}

// printStatsJSON prints stats.json of each checkpoint.
func printStatsJSON(a *app, stats map[string]json.RawMessage, o statsOptions) error {
	for name, text := range stats {
		if o.buckets {
			break
		}
		brief, err := withoutTimes(text)
		if err != nil {
			return fmt.Errorf("stats.json of %s: %w", name, err)
		}
		stats[name] = brief
	}
	if o.watch {
		return json.NewEncoder(a.stdout).Encode(stats)
	}
	return a.printJSON(stats)
}

// withoutTimes leaves out of a stats.json what has an element for each wait.
func withoutTimes(text json.RawMessage) (json.RawMessage, error) {
	var all, stalls map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["stalls"], &stalls); err != nil {
		return nil, err
	}
	delete(all, "prefetch_intervals")
	delete(stalls, "buckets_us")
	var err error
	if all["stalls"], err = json.Marshal(stalls); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// printStats prints the totals, and then what has happened since the last restore of each checkpoint.
func printStats(a *app, stats map[string]json.RawMessage) error {
	var rows, last [][]string
	for _, name := range slices.Sorted(maps.Keys(stats)) {
		var c counters
		if err := json.Unmarshal(stats[name], &c); err != nil {
			return fmt.Errorf("stats.json of %s: %w", name, err)
		}
		rows = append(rows, []string{
			name, count(c.Opens), count(c.PrefetchedPages), fmt.Sprintf("%.3f s", c.PrefetchSeconds),
			count(c.LazyPages), count(c.LazyRequests), count(c.PushedPages),
			fmt.Sprintf("%.3f s", c.StallSeconds), fmt.Sprintf("%.3f s", c.Stalls.Longest),
			count(c.Errors),
		})
		if r := c.LastRestore; r != nil {
			last = append(last, lastRow(name, r))
		}
	}
	a.table([]string{"NAME", ">OPENS", ">PREFETCHED", ">IN", ">LAZY", ">REQUESTS", ">PUSHED",
		">STALLED", ">LONGEST", ">ERRORS"}, rows)
	if len(last) > 0 {
		a.printf("\nsince the last restore of each:\n\n")
		a.table([]string{"NAME", ">AGO", ">PREFETCHED", ">IN", ">LAZY", ">REQUESTS", ">PUSHED", ">STALLED",
			">ERRORS", "RESTORE"}, last)
	}
	return nil
}

// lastRow is what has happened since a restore, of a clone under its name.
func lastRow(name string, r *fs.LastRestore) []string {
	if r.Clone != "" {
		name += "/" + r.Clone
	}
	return []string{
		name, time.Since(r.At).Round(time.Second).String(), count(r.PrefetchedPages),
		fmt.Sprintf("%.3f s", r.WaitedSeconds), count(r.LazyPages), count(r.LazyRequests),
		count(r.PushedPages), fmt.Sprintf("%.3f s", r.StallSeconds), count(r.Errors), r.ID,
	}
}

// readStats reads the stats.json of one checkpoint, or of all.
func readStats(m access.Mount) (map[string]json.RawMessage, error) {
	names := []string{m.Name}
	all := m.Name == "" || m.Name == access.Dot
	if all {
		entries, err := os.ReadDir(m.Root)
		if err != nil {
			return nil, err
		}
		names = nil
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	stats := make(map[string]json.RawMessage)
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(m.Root, name, "stats.json"))
		switch {
		case err == nil:
			stats[name] = text
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		case !all: // else it is removed since it was listed, or no checkpoint
			return nil, m.NoCheckpoint(name)
		}
	}
	return stats, nil
}
