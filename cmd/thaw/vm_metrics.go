package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
)

func newVMMetricsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics SOCK",
		Short: "Show what a machine has counted",
		Long: `Show the counters of the machine behind SOCK: of each vCPU the exits by their reason and
how long it stalled, which is how long it waited for pages; pauses and checkpoints, with
what the last one cost; and the pages touched and changed since the memory was mapped
from its checkpoint.` + exitStatus(exitcode.NotFound, exitcode.ServerGone),
		Example: "  thaw vm metrics /tmp/vm.sock --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), machineAnswer)
			defer cancel()
			m, err := api.NewClient(args[0]).Metrics(ctx)
			if err != nil {
				return machineError("metrics", err)
			}
			if a.json {
				return a.printJSON(m)
			}
			for _, r := range metricRows(m) {
				a.printf("%s%s\n", pad(r[0], 13), r[1])
			}
			return nil
		},
	}
}

func metricRows(m api.Metrics) (rows [][2]string) {
	row := func(name, format string, args ...any) {
		rows = append(rows, [2]string{name, fmt.Sprintf(format, args...)})
	}
	row("running for", "%.3f s", m.Seconds)
	for i, v := range m.VCPUs {
		name := fmt.Sprintf("vCPU %d", i)
		row(name, "stalled %.3f s", v.StallSeconds)
		for _, reason := range slices.Sorted(maps.Keys(v.Exits)) {
			row("", "%s exits: %s", count(v.Exits[reason]), reason)
		}
	}
	row("paused", "%s times, %.3f s", count(m.Pauses), m.PausedSeconds)
	row("checkpoints", "%s, and %s that failed", count(m.Checkpoints), count(m.FailedCheckpoints))
	if c := m.LastCheckpoint; c != nil {
		row("the last", "%s", checkpointLine(*c))
	}
	if m.TouchedPages != nil && m.DirtyPages != nil {
		row("touched", "%s pages", count(*m.TouchedPages))
		row("changed", "%s pages", count(*m.DirtyPages))
	}
	return rows
}
