package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
)

func newVMMetricsCommand(a *app) *cobra.Command {
	cmd := newVMSocketCommand(a, "metrics", (*api.Client).Metrics, metricRows)
	cmd.Short = "Show what a machine has counted"
	cmd.Long = `Show the counters of the machine behind SOCK: of each vCPU the exits by their reason and
how long it stalled, which is how long it waited for pages; pauses and checkpoints, with
what the last one cost; and the pages touched and changed since the memory was mapped
from its checkpoint.` + exitStatus(exitcode.NotFound, exitcode.ServerGone)
	cmd.Example = "  thaw vm metrics /tmp/vm.sock --json"
	return cmd
}

func metricRows(m api.Metrics) (rows lines) {
	rows.add("running for", "%.3f s", m.Seconds)
	for i, v := range m.VCPUs {
		name := fmt.Sprintf("vCPU %d", i)
		rows.add(name, "stalled %.3f s", v.StallSeconds)
		for _, reason := range slices.Sorted(maps.Keys(v.Exits)) {
			rows.add("", "%s exits: %s", count(v.Exits[reason]), reason)
		}
	}
	rows.add("paused", "%s times, %.3f s", count(m.Pauses), m.PausedSeconds)
	rows.add("checkpoints", "%s, and %s that failed", count(m.Checkpoints), count(m.FailedCheckpoints))
	if c := m.LastCheckpoint; c != nil {
		rows.add("the last", "%s", checkpointLine(*c))
	}
	if m.TouchedPages != nil && m.DirtyPages != nil {
		rows.add("touched", "%s pages", count(*m.TouchedPages))
		rows.add("changed", "%s pages", count(*m.DirtyPages))
	}
	return rows
}
