package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/logs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// vmOptions are the flags that run and restore share, and what all flags make of the machine.
type vmOptions struct {
	vmm.Config
	console string   // a file; "": the terminal
	disks   []string // FILE[,ro]
}

func (o *vmOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.API, "api", "", "unix socket to control the machine")
	f.DurationVar(&o.For, "for", 0, "for how long the machine runs, from its first instruction on; 0: no limit")
	f.BoolVar(&o.Paused, "paused", false, "do not start before a resume on the socket")
	f.StringVar(&o.console, "console", "",
		"write a kernel's serial console to this file, instead of the terminal")
}

// prepare checks the flags. announce says that the machine is there.
func (o *vmOptions) prepare(a *app, announce string) (err error) {
	switch {
	case o.For < 0:
		return exitcode.Errorf(exitcode.Usage, "--for %s: a time below zero", o.For)
	case o.Paused && o.API == "":
		return exitcode.Errorf(exitcode.Usage, "--paused needs --api: nothing could start the machine")
	}
	// A machine does not end because nobody reads its log or its console any more.
	signal.Ignore(syscall.SIGPIPE)
	o.Log, o.Started = slog.New(logs.Limit(a.log.Handler())), func() {
		a.patience.Store(int64(machinePatience))
		if o.API != "" {
			announce += "; socket " + o.API
		}
		a.note("%s", announce)
	}
	o.Disks, err = parseDisks(o.disks)
	return err
}

// run runs a machine, with the console for its time where it has one, and prints what it did. The
// terminal is given back before anything is printed.
func (o *vmOptions) run(a *app, console bool, run func(vmm.Config) (*vmm.Report, error)) error {
	if !console {
		return a.printReport(run(o.Config))
	}
	c, err := openConsole(a, o.console)
	if err != nil {
		return vmmError(err)
	}
	o.Console, o.Input = c.out, c.in
	rep, err := run(o.Config)
	return a.printReport(rep, errors.Join(err, c.close()))
}

// vmRunOptions are what a machine is made of.
type vmRunOptions struct {
	vmOptions
	args   []string
	memory sizeFlag
}

func newVMRunCommand(a *app) *cobra.Command {
	o := vmRunOptions{memory: 1 << 30}
	cmd := &cobra.Command{
		Use:   "run [GUEST]",
		Short: "Run a Linux kernel or a guest program in a new machine",
		Long: `Run a Linux kernel (--kernel) or a guest program in a new machine, in the foreground.

A kernel is a bzImage or an ELF vmlinux, with an optional initial RAM disk and disks.
Its serial console is the terminal, where ctrl-a x ends the machine, or --console
FILE. It finds its CPUs and devices by ACPI: serial port, virtio disks in the order of
--disk, random numbers, generation ID. The run ends when it switches the machine off
or resets it.

A disk is a file or a block device, opened for writing; with ",ro" behind its name
only for reading. A checkpoint has the path of a disk, but not its content: keep the
disk as it was, or a copy of it.

GUEST (or --guest) is one of

  heap        transactions over a skewed heap, as many as it can (default)
  stream      a player: 30 frames a second out of a small part of a big cached file
  idle        almost nothing, ten times a second
  random:PCT  PCT % of memory, each page once a round, in random order
  pair        two vCPUs that check each other's memory

Each fills memory first and checks every byte that it reads; a wrong one ends the run with
an error that names the page. Options of the programs (--arg NAME=VALUE):

` + indent(guest.Options) + exitStatus(exitcode.Unsupported, exitcode.GuestFailed,
			exitcode.Interrupted),
		Example: `  thaw vm run --kernel vmlinuz --initrd initrd.img --memory 512MiB --cpus 2
  thaw vm run --kernel vmlinux --disk root.img --cmdline "console=ttyS0 root=/dev/vda"
  thaw vm run heap --memory 1GiB --arg set=64MiB --api /tmp/vm.sock
  thaw vm run random:50 --memory 512MiB --for 10s --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			chosen := cmd.Flags().Changed("guest")
			if len(names) > 0 && chosen && names[0] != o.Guest.Program {
				return exitcode.Errorf(exitcode.Usage, "vm run: two guests, %q and %q", names[0],
					o.Guest.Program)
			}
			if len(names) > 0 {
				o.Guest.Program = names[0]
			}
			if o.Kernel != "" && (len(names) > 0 || chosen) {
				return exitcode.Errorf(exitcode.Usage, "vm run: two guests, %q and the kernel %s",
					o.Guest.Program, o.Kernel)
			}
			return named(runVMRun(cmd.Context(), a, o), "vm run")
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Guest.Program, "guest", "heap", "guest program")
	f.StringArrayVar(&o.args, "arg", nil, "option NAME=VALUE of the guest program; may be repeated")
	f.StringVar(&o.Kernel, "kernel", "", "Linux kernel: bzImage or ELF vmlinux")
	f.StringVar(&o.Initrd, "initrd", "", "initial RAM disk of the kernel")
	f.StringVar(&o.Cmdline, "cmdline", vmm.DefaultCmdline, "command line of the kernel")
	f.StringArrayVar(&o.disks, "disk", nil, "disk FILE[,ro] of the kernel; may be repeated")
	f.Var(&o.memory, "memory", "RAM of the machine")
	f.IntVar(&o.CPUs, "cpus", 0, "virtual CPUs (default: 1, or what the guest program is for)")
	o.addFlags(f)
	return cmd
}

func runVMRun(ctx context.Context, a *app, o vmRunOptions) error {
	if err := checkMemory(int64(o.memory)); err != nil {
		return err
	}
	if o.CPUs < 0 {
		return exitcode.Errorf(exitcode.Usage, "--cpus %d", o.CPUs)
	}
	o.MemoryBytes = uint64(o.memory)
	name := cmp.Or(o.Kernel, o.Guest.Program)
	err := o.prepare(a, fmt.Sprintf("running %s with %s of memory", name, size(int64(o.memory))))
	switch {
	case err != nil:
		return err
	case o.Kernel != "":
		o.Guest = guest.Spec{}
	case o.Initrd != "" || len(o.disks) > 0:
		return exitcode.Errorf(exitcode.Usage, "--initrd and --disk need --kernel")
	default:
		o.Cmdline = ""
		if err := parseGuestArgs(&o.Guest, o.args); err != nil {
			return err
		}
	}
	return o.run(a, o.Kernel != "", func(cfg vmm.Config) (*vmm.Report, error) {
		return vmm.Run(ctx, cfg)
	})
}

// parseGuestArgs puts the options NAME=VALUE of a guest program into its specification, and checks it.
func parseGuestArgs(spec *guest.Spec, args []string) error {
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok {
			return exitcode.Errorf(exitcode.Usage, "--arg %q is not NAME=VALUE", arg)
		}
		if spec.Args == nil {
			spec.Args = make(map[string]string)
		}
		spec.Args[k] = v
	}
	_, err := guest.Load(*spec)
	return exitcode.With(exitcode.Usage, err)
}

// parseDisks reads what --disk says.
func parseDisks(list []string) (disks []state.Disk, err error) {
	for _, s := range list {
		path, ro := strings.CutSuffix(s, ",ro")
		if path == "" {
			return nil, exitcode.Errorf(exitcode.Usage, "--disk %q: give FILE or FILE,ro", s)
		}
		disks = append(disks, state.Disk{Path: path, ReadOnly: ro})
	}
	if len(disks) > state.MaxDisks {
		return nil, exitcode.Errorf(exitcode.Usage, "%d disks, a machine has at most %d", len(disks),
			state.MaxDisks)
	}
	return disks, nil
}

// checkMemory says what is wrong with a machine's --memory.
func checkMemory(n int64) error {
	if n >= ram.MinMemory && n <= ram.MaxMemory && n%index.PageSize == 0 {
		return nil
	}
	return exitcode.Errorf(exitcode.Usage, "--memory of %s: give whole pages of %s, from %s to %s",
		size(n), size(index.PageSize), size(ram.MinMemory), size(ram.MaxMemory))
}

// printReport prints what a machine did, also when it ended in an error, and passes that on.
func (a *app) printReport(rep *vmm.Report, err error) error {
	err = vmmError(err)
	if rep == nil {
		return err
	}
	if a.json {
		return cmp.Or(err, a.printJSON(rep))
	}
	a.printLines(19, reportRows(rep))
	return err
}

func reportRows(rep *vmm.Report) (rows lines) {
	rows.add("guest", "%s%s", rep.Guest.Program, guestArgs(rep.Guest.Args))
	rows.add("memory", "%s (%s pages)", size(int64(rep.MemoryBytes)), count(rep.GuestPages))
	rows.add("ended", "%s, after %.3f s", rep.End, rep.RunSeconds)
	if p := rep.Progress; p.Units != "" { // a kernel counts nothing
		rows.add("done", "%s %s now (%.1f a second), %s in all", count(p.Total), p.Units,
			float64(p.Total)/max(rep.RunSeconds, 1e-9), count(rep.Done))
	}
	for _, st := range rep.Stalls {
		rows.add("stalled", "%.3f s (vCPU %d waited for pages)", st.Seconds, st.VCPU)
	}
	r := rep.Restore
	if r == nil {
		return rows
	}
	rows.add("memory opened", "after %.3f s", r.OpenSeconds)
	rows.add("first instruction", "after %.3f s", r.FirstInstructionSeconds)
	rows.add("touched", "%s pages in %.3g s, %s of them changed", count(r.TouchedPages), r.Window,
		count(r.DirtyPages))
	if c := r.Counts; c != nil {
		rows.add("prefetched", "%s pages", count(c.Prefetched))
		rows.add("skipped", "%s pages (prefetched and touched)", count(c.Skipped))
		rows.add("lazy", "%s pages (touched, not prefetched)", count(c.Lazy))
	}
	for _, n := range rep.Notes {
		rows.add("note", "%s", n)
	}
	return rows
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }
