package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/guest"
)

// vmOptions are the flags that run and restore share.
type vmOptions struct {
	api    string
	limit  time.Duration
	paused bool
}

func (o *vmOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.api, "api", "", "unix socket to drive the machine by")
	f.DurationVar(&o.limit, "for", 0, "end the machine so long after its first instruction")
	f.BoolVar(&o.paused, "paused", false, "do not start before a resume on the socket")
}

// config is the VMM's part of the options. announce says that the machine is there.
func (o *vmOptions) config(a *app, announce string) (vmm.Config, error) {
	switch {
	case o.limit < 0:
		return vmm.Config{}, exitcode.Errorf(exitcode.Usage, "--for %s: a time below zero", o.limit)
	case o.paused && o.api == "":
		return vmm.Config{}, exitcode.Errorf(exitcode.Usage,
			"--paused needs --api: nothing could start the machine")
	}
	return vmm.Config{API: o.api, For: o.limit, Paused: o.paused, Log: a.log, Started: func() {
		if o.api != "" {
			announce += "; socket " + o.api
		}
		a.note("%s", announce)
	}}, nil
}

func newVMRunCommand(a *app) *cobra.Command {
	var o vmOptions
	var program string
	var args []string
	memory := sizeFlag(1 << 30)
	cmd := &cobra.Command{
		Use:   "run [GUEST]",
		Short: "Run a guest program in a new machine",
		Long: `Run a guest program in a new machine, in the foreground. GUEST (or --guest) is one of

  heap        transactions over a skewed heap, as many as it can (default)
  stream      a player: 30 frames a second out of a small part of a big cached file
  idle        nearly nothing, ten times a second
  random:PCT  PCT % of memory, each page once a round, in random order

Each fills memory first and checks every byte that it reads; a wrong one ends the run with
an error that names the page. Options of the programs (--arg NAME=VALUE):

` + indent(guest.Options) + exitStatus(exitcode.Unsupported, exitcode.GuestFailed,
			exitcode.Interrupted),
		Example: `  thaw vm run heap --memory 1GiB --arg set=64MiB --api /tmp/vm.sock
  thaw vm run random:50 --memory 512MiB --for 10s --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) > 0 {
				if cmd.Flags().Changed("guest") && names[0] != program {
					return exitcode.Errorf(exitcode.Usage, "vm run: two guests, %q and %q", names[0], program)
				}
				program = names[0]
			}
			return runVMRun(cmd.Context(), a, o, program, args, int64(memory))
		},
	}
	f := cmd.Flags()
	f.StringVar(&program, "guest", "heap", "guest program")
	f.StringArrayVar(&args, "arg", nil, "option NAME=VALUE of the guest program; may be repeated")
	f.Var(&memory, "memory", "RAM of the machine")
	o.addFlags(f)
	return cmd
}

func runVMRun(ctx context.Context, a *app, o vmOptions, program string, args []string,
	memory int64) error {
	spec := guest.Spec{Program: program}
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok {
			return exitcode.Errorf(exitcode.Usage, "vm run: --arg %q is not NAME=VALUE", arg)
		}
		if spec.Args == nil {
			spec.Args = make(map[string]string)
		}
		spec.Args[k] = v
	}
	if _, err := guest.Load(spec); err != nil {
		return exitcode.With(exitcode.Usage, fmt.Errorf("vm run: %w", err))
	}
	if err := checkMemory(memory); err != nil {
		return fmt.Errorf("vm run: %w", err)
	}
	cfg, err := o.config(a, fmt.Sprintf("running %s with %s of memory", program, size(memory)))
	if err != nil {
		return fmt.Errorf("vm run: %w", err)
	}
	cfg.Guest, cfg.MemoryBytes = spec, uint64(memory)
	rep, err := vmm.Run(ctx, cfg)
	return a.printReport("vm run", rep, err)
}

// checkMemory says what is wrong with a machine's --memory.
func checkMemory(n int64) error {
	if n >= vmm.MinMemory && n <= vmm.MaxMemory && n%index.PageSize == 0 {
		return nil
	}
	return exitcode.Errorf(exitcode.Usage, "--memory of %s: give whole pages of %s, from %s to %s",
		size(n), size(index.PageSize), size(vmm.MinMemory), size(vmm.MaxMemory))
}

// printReport prints what a machine did, also when it ended in an error, and passes that on.
func (a *app) printReport(verb string, rep *vmm.Report, err error) error {
	if err != nil {
		err = vmmError(fmt.Errorf("%s: %w", verb, err))
	}
	if rep == nil {
		return err
	}
	if a.json {
		if perr := a.printJSON(rep); err == nil {
			err = perr
		}
		return err
	}
	for _, r := range reportRows(rep) {
		a.printf("%s%s\n", pad(r[0], 19), r[1])
	}
	return err
}

func reportRows(rep *vmm.Report) [][2]string {
	perSecond := float64(rep.Progress.Total) / max(rep.RunSeconds, 1e-9)
	rows := [][2]string{
		{"guest", rep.Guest.Program + guestArgs(rep.Guest.Args)},
		{"memory", fmt.Sprintf("%s (%s pages)", size(int64(rep.MemoryBytes)), count(rep.GuestPages))},
		{"ended", fmt.Sprintf("%s, after %.3f s", rep.End, rep.RunSeconds)},
		{"done", fmt.Sprintf("%s %s now (%.1f a second), %s in all", count(rep.Progress.Total),
			rep.Progress.Units, perSecond, count(rep.Done))},
	}
	r := rep.Restore
	if r == nil {
		return rows
	}
	rows = append(rows,
		[2]string{"memory opened", fmt.Sprintf("after %.3f s", r.OpenSeconds)},
		[2]string{"first instruction", fmt.Sprintf("after %.3f s", r.FirstInstructionSeconds)},
		[2]string{"touched", fmt.Sprintf("%s pages in %.3g s, %s of them changed", count(r.TouchedPages),
			r.Window, count(r.DirtyPages))})
	if c := r.Counts; c != nil {
		rows = append(rows,
			[2]string{"prefetched", count(c.Prefetched) + " pages"},
			[2]string{"skipped", count(c.Skipped) + " pages (prefetched and touched)"},
			[2]string{"lazy", count(c.Lazy) + " pages (touched, not prefetched)"})
	}
	for _, n := range rep.Notes {
		rows = append(rows, [2]string{"note", n})
	}
	return rows
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
