package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/wss/scan"
)

// estimateOptions are how the working set is estimated around a checkpoint.
type estimateOptions struct {
	scan, trace time.Duration
	budget      float64 // percent
}

func (o *estimateOptions) addFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.scan, "scan", 0, "scan access bits so long before the checkpoint")
	f.Float64Var(&o.budget, "scan-budget", 100*scan.DefaultBudget,
		"percent of the machine's time that scanning may take")
	f.DurationVar(&o.trace, "trace", 0, "trace first touches so long after the checkpoint")
}

// into puts the options into a request.
func (o *estimateOptions) into(r *api.CheckpointRequest) error {
	switch {
	case o.scan < 0 || o.trace < 0:
		return exitcode.Errorf(exitcode.Usage, "--scan and --trace: a time below zero")
	case o.budget <= 0 || o.budget > 100:
		return exitcode.Errorf(exitcode.Usage, "--scan-budget %g: more than 0, at most 100 percent",
			o.budget)
	case o.trace > 0 && r.NoRemap:
		return exitcode.Errorf(exitcode.Usage,
			"--trace needs the memory mapped from DIR, which --no-remap refuses")
	}
	r.ScanSeconds, r.ScanBudget = o.scan.Seconds(), o.budget/100
	r.TraceSeconds = o.trace.Seconds()
	return nil
}

// estimateLines say what was found.
func estimateLines(r api.CheckpointReply) (text string) {
	if s := r.Scan; s != nil {
		text += fmt.Sprintf("access bits: %s pages; %s\n", count(s.Pages), s.Way)
	}
	if t := r.Trace; t != nil {
		text += fmt.Sprintf("trace: %s pages in %.3g s; %s", count(t.Pages), t.Seconds, t.Way)
		if t.LostEvents+t.SilentPages > 0 {
			text += fmt.Sprintf("; %s events lost, %s pages without one", count(t.LostEvents),
				count(t.SilentPages))
		}
		text += "\n"
	}
	return text
}
