package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

type statsOptions struct {
	watch    bool
	interval time.Duration
}

func newStatsCommand(a *app) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats MNT [NAME]",
		Short: "Show the live counters of a mount",
		Long: `Show counters of each checkpoint since it was last cold, including its clones: opens;
pages prefetched, and how long the opens waited for them; pages and requests that were
read on demand; pages pushed ahead of demand; seconds in which a reader waited, all of
them and the longest at once; errors.

With NAME (or MNT/NAME) one checkpoint. --watch prints again and again. With --json:
what "stats.json" holds, by name; with --watch one object a line. Totals of the server
for Prometheus are in MNT/.thaw/metrics.` + exitStatus(exitcode.NotFound, exitcode.ServerGone),
		Example: `  thaw stats /mnt/thaw
  thaw stats /mnt/thaw web-1 --watch`,
		GroupID: groupMount,
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runStats(cmd.Context(), a, filepath.Join(args...), o)
		},
	}
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "print again and again until interrupted")
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "time between two prints")
	return cmd
}

// counters are the fields of stats.json that the table shows.
type counters struct {
	Opens           uint64  `json:"opens"`
	PrefetchedPages uint64  `json:"prefetched_pages"`
	PrefetchSeconds float64 `json:"prefetch_seconds"`
	LazyPages       uint64  `json:"lazy_pages"`
	LazyRequests    uint64  `json:"lazy_requests"`
	PushedPages     uint64  `json:"pushed_pages"`
	StallSeconds    float64 `json:"stall_seconds"`
	Stalls          struct {
		Longest float64 `json:"longest_seconds"`
	} `json:"stalls"`
	Errors uint64 `json:"errors"`
}

func runStats(ctx context.Context, a *app, path string, o statsOptions) error {
	ref, err := resolveMount(ctx, path)
	if err != nil {
		return fmt.Errorf("stats: %w", err)
	}
	if o.watch && o.interval <= 0 {
		return exitcode.Errorf(exitcode.Usage, "stats: --interval must be more than 0")
	}
	for {
		if err := printStats(ctx, a, ref, o.watch); err != nil {
			return fmt.Errorf("stats: %w", err)
		}
		if !o.watch || a.out.failed() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // how a watch is ended
		case <-time.After(o.interval):
		}
	}
}

func printStats(ctx context.Context, a *app, ref mountRef, oneLine bool) error {
	all, err := bounded(ctx, func() (readCounters, error) { return readStats(ref) })
	if errors.Is(err, errSilent) {
		return silentServer(ref.Root)
	}
	if err != nil {
		return err
	}
	names, texts := all.names, all.texts
	if a.json {
		byName := make(map[string]json.RawMessage, len(names))
		for i, name := range names {
			byName[name] = texts[i]
		}
		if oneLine {
			return json.NewEncoder(a.stdout).Encode(byName)
		}
		return a.printJSON(byName)
	}
	rows := make([][]string, len(names))
	for i, name := range names {
		var c counters
		if err := json.Unmarshal(texts[i], &c); err != nil {
			return fmt.Errorf("stats.json of %s: %w", name, err)
		}
		rows[i] = []string{
			name, count(c.Opens), count(c.PrefetchedPages), fmt.Sprintf("%.3f s", c.PrefetchSeconds),
			count(c.LazyPages), count(c.LazyRequests), count(c.PushedPages),
			fmt.Sprintf("%.3f s", c.StallSeconds), fmt.Sprintf("%.3f s", c.Stalls.Longest),
			count(c.Errors),
		}
	}
	a.table([]string{"NAME", ">OPENS", ">PREFETCHED", ">IN", ">LAZY", ">REQUESTS", ">PUSHED",
		">STALLED", ">LONGEST", ">ERRORS"}, rows)
	return nil
}

// readCounters are texts of stats.json, by the names of their checkpoints.
type readCounters struct {
	names []string
	texts []json.RawMessage
}

// readStats reads the stats.json of one checkpoint, or of all.
func readStats(ref mountRef) (c readCounters, err error) {
	var names []string
	if ref.Name != "" && ref.Name != dot {
		names = []string{ref.Name}
	} else {
		entries, err := os.ReadDir(ref.Root)
		if err != nil {
			return c, err
		}
		for _, e := range entries {
			if e.Name() != dot {
				names = append(names, e.Name())
			}
		}
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(ref.Root, name, "stats.json"))
		if errors.Is(err, os.ErrNotExist) {
			if ref.Name == "" {
				continue // removed since it was listed
			}
			return c, exitcode.WithHint(exitcode.NotFound,
				fmt.Errorf("no checkpoint %q on %s", name, ref.Root), "see: ls "+ref.Root)
		}
		if err != nil {
			return c, err
		}
		c.names, c.texts = append(c.names, name), append(c.texts, text)
	}
	return c, nil
}
