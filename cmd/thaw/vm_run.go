package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// vmOptions are the flags that run and restore share.
type vmOptions struct {
	api    string
	limit  time.Duration
	paused bool
}

func (o *vmOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.api, "api", "", "unix socket to control the machine")
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
	// A machine does not end because nobody reads its log or its console any more.
	signal.Ignore(syscall.SIGPIPE)
	return vmm.Config{API: o.api, For: o.limit, Paused: o.paused, Log: a.log, Started: func() {
		a.patience.Store(int64(machinePatience))
		if o.api != "" {
			announce += "; socket " + o.api
		}
		a.note("%s", announce)
	}}, nil
}

// vmRunOptions are what a machine is made of.
type vmRunOptions struct {
	vmOptions
	consoleOptions
	program string
	args    []string
	memory  sizeFlag

	kernel, initrd, cmdline string
	cpus                    int
	disks                   []string
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
			if len(names) > 0 {
				if cmd.Flags().Changed("guest") && names[0] != o.program {
					return exitcode.Errorf(exitcode.Usage, "vm run: two guests, %q and %q", names[0],
						o.program)
				}
				o.program = names[0]
			}
			if o.kernel != "" && (len(names) > 0 || cmd.Flags().Changed("guest")) {
				return exitcode.Errorf(exitcode.Usage, "vm run: two guests, %q and the kernel %s",
					o.program, o.kernel)
			}
			return named(runVMRun(cmd.Context(), a, o), "vm run")
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.program, "guest", "heap", "guest program")
	f.StringArrayVar(&o.args, "arg", nil, "option NAME=VALUE of the guest program; may be repeated")
	f.StringVar(&o.kernel, "kernel", "", "Linux kernel: bzImage or ELF vmlinux")
	f.StringVar(&o.initrd, "initrd", "", "initial RAM disk of the kernel")
	f.StringVar(&o.cmdline, "cmdline", vmm.DefaultCmdline, "command line of the kernel")
	f.StringArrayVar(&o.disks, "disk", nil, "disk FILE[,ro] of the kernel; may be repeated")
	f.Var(&o.memory, "memory", "RAM of the machine")
	f.IntVar(&o.cpus, "cpus", 0, "virtual CPUs (default: 1, or what the guest program is for)")
	o.vmOptions.addFlags(f)
	o.consoleOptions.addFlags(f)
	return cmd
}

func runVMRun(ctx context.Context, a *app, o vmRunOptions) (err error) {
	if err := checkMemory(int64(o.memory)); err != nil {
		return err
	}
	if o.cpus < 0 {
		return exitcode.Errorf(exitcode.Usage, "--cpus %d", o.cpus)
	}
	name := o.program
	if o.kernel != "" {
		name = o.kernel
	}
	cfg, err := o.config(a, fmt.Sprintf("running %s with %s of memory", name, size(int64(o.memory))))
	if err != nil {
		return err
	}
	cfg.MemoryBytes, cfg.CPUs = uint64(o.memory), o.cpus
	if o.kernel == "" {
		err = o.guest(&cfg)
	} else {
		cfg.Kernel, cfg.Initrd, cfg.Cmdline = o.kernel, o.initrd, o.cmdline
		cfg.Disks, err = parseDisks(o.disks)
	}
	if err != nil {
		return err
	}
	run := func() (*vmm.Report, error) { return vmm.Run(ctx, cfg) }
	if o.kernel != "" {
		run = withConsole(a, o.consoleOptions, &cfg, run)
	}
	rep, err := run()
	return a.printReport(rep, err)
}

// withConsole connects the console for the time of a run, and gives the terminal back before
// anything else is printed.
func withConsole(a *app, o consoleOptions, cfg *vmm.Config, run func() (*vmm.Report, error)) func() (
	*vmm.Report, error) {
	return func() (*vmm.Report, error) {
		c, err := o.open(a)
		if err != nil {
			return nil, err
		}
		cfg.Console, cfg.Input = c.out, c.in
		rep, err := run()
		return rep, errors.Join(err, c.close())
	}
}

// guest is the guest program's part of the configuration.
func (o *vmRunOptions) guest(cfg *vmm.Config) error {
	if o.initrd != "" || len(o.disks) > 0 {
		return exitcode.Errorf(exitcode.Usage, "--initrd and --disk need --kernel")
	}
	cfg.Guest.Program = o.program
	return parseGuestArgs(&cfg.Guest, o.args)
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
	a.pairs(19, reportRows(rep))
	return err
}

func reportRows(rep *vmm.Report) [][2]string {
	perSecond := float64(rep.Progress.Total) / max(rep.RunSeconds, 1e-9)
	rows := [][2]string{
		{"guest", rep.Guest.Program + guestArgs(rep.Guest.Args)},
		{"memory", fmt.Sprintf("%s (%s pages)", size(int64(rep.MemoryBytes)), count(rep.GuestPages))},
		{"ended", fmt.Sprintf("%s, after %.3f s", rep.End, rep.RunSeconds)},
	}
	if rep.Progress.Units != "" { // a kernel counts nothing
		rows = append(rows, [2]string{"done", fmt.Sprintf("%s %s now (%.1f a second), %s in all",
			count(rep.Progress.Total), rep.Progress.Units, perSecond, count(rep.Done))})
	}
	for _, st := range rep.Stalls {
		rows = append(rows, [2]string{"stalled", fmt.Sprintf("%.3f s (vCPU %d waited for pages)",
			st.Seconds, st.VCPU)})
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
