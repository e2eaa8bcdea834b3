package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/outfile"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/process"
	"github.com/thawfs/thaw/wss/qemu"
	"github.com/thawfs/thaw/wss/report"
	"github.com/thawfs/thaw/wss/scan"
)

type wsScanOptions struct {
	qmp, memory, out string
	pid              int
	ram              ramOptions
	wait             time.Duration
	within           time.Duration
	budget           float64 // percent
}

// ramOptions say which memory of a process is the machine's RAM.
type ramOptions struct {
	file  string
	fd    int // negative: not given
	below sizeFlag
}

func newWSScanCommand(a *app) *cobra.Command {
	var o wsScanOptions
	cmd := &cobra.Command{
		Use:   "scan {--qemu SOCKET --memory FILE | --pid PID} --out FILE",
		Short: "Estimate the working set of a running machine from outside",
		Long: `Scan the access bits of a machine that runs under any VMM, from outside, while it runs, and
write what it touched within the last --within as a working set (source access). Save
the machine just afterwards; the file goes into the checkpoint directory as
"working-set", before "thaw import", or is set by "thaw ws import" later.

Neither the VMM nor the guest is changed. The guest's RAM has to be a file that is mapped
shared. The machine is stopped for moments, within --budget of its time; that sets how
often it is looked at. The CPU must set the bits again; if it does not, that is an error,
not an empty set. A guest that sleeps sets none: it is waited for, --wait at most. Pages
are counted in the file, whose holes below 4 GiB VMMs leave out.

QEMU, BY ITS QMP SOCKET. No other program may use the socket meanwhile:

  qemu-system-x86_64 … -m 4G \
    -object memory-backend-file,id=ram,size=4G,mem-path=/dev/shm/ram,share=on \
    -machine q35,memory-backend=ram -qmp unix:/run/vm.qmp,server=on,wait=off

ANY VMM, BY ITS PROCESS. RAM is found among the shared mappings of the process: a memfd,
or a file of a tmpfs, a hugetlbfs, or a disk; if there are several large ones, --file or
--fd says which. The guest must be a 64-bit Linux, whose page tables are found in the
memory itself. The threads of the VMM are stopped as a debugger stops them, so you must
be root, or its user with /proc/sys/kernel/yama/ptrace_scope 0. With KVM a sweep writes
to /proc/PID/clear_refs. If the guest has more than 2 GiB and its memory does not show
where the hole below 4 GiB is, --below-4g says how much RAM is below it (3GiB with
Firecracker, Cloud Hypervisor and QEMU's pc; 2GiB with QEMU's q35).` +
			exitStatus(exitcode.NotFound, exitcode.NotImage, exitcode.Unsupported,
				exitcode.ServerGone, exitcode.WorkingSet, exitcode.Interrupted),
		Example: `  thaw ws scan --qemu /run/vm.qmp --memory /dev/shm/ram --out saved/working-set
  thaw ws scan --pid 4711 --out saved/working-set`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("fd") {
				o.ram.fd = -1
			} else if o.ram.fd < 0 {
				return exitcode.Errorf(exitcode.Usage, "--fd must not be negative")
			}
			return named(runWSScan(cmd.Context(), a, o), "ws scan")
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.qmp, "qemu", "", "QMP socket of the machine")
	f.StringVar(&o.memory, "memory", "", "with --qemu: file that is the machine's RAM")
	f.IntVar(&o.pid, "pid", 0, "process of the VMM")
	f.StringVar(&o.ram.file, "file", "", "with --pid: file that is the machine's RAM")
	f.IntVar(&o.ram.fd, "fd", 0, "with --pid: descriptor of the process that is the machine's RAM")
	f.Var(&o.ram.below, "below-4g", "with --pid: RAM below 4 GiB")
	f.StringVar(&o.out, "out", "", "file for the working set")
	f.DurationVar(&o.wait, "wait", defaultNap, "how long to wait for a guest that sleeps")
	f.DurationVar(&o.within, "within", scan.DefaultWithin, "how far back a touch counts")
	f.Float64Var(&o.budget, "budget", 100*scan.DefaultBudget,
		"percent of the machine's time that scanning may take")
	return cmd
}

func runWSScan(ctx context.Context, a *app, o wsScanOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	var g scanned
	var err error
	if o.pid != 0 {
		g, err = openProcess(ctx, o)
	} else {
		g, err = openQEMU(ctx, o)
	}
	if err != nil {
		return stopped(ctx, err)
	}
	var set *wss.Set
	var stats scan.Stats
	p := patientScan{wait: o.wait, note: a.note, now: time.Now, sleep: sleepFor}
	err = p.do(ctx, func() (err error) {
		set, stats, err = scanGuest(ctx, g, o)
		return err
	})
	if err = errors.Join(err, g.Close()); err != nil {
		return stopped(ctx, err)
	}
	if err := writeSet(o.out, set); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Summary report.Summary `json:"summary"`
			Scan    scan.Stats     `json:"scan"`
		}{report.Summarize(set), stats})
	}
	a.note("%s: %s in %s pages, touched within %v; %d sweeps took %.2f %% of the machine's time, "+
		"the longest %.1f ms", o.out, size(set.Bytes()), count(set.Pages()), o.within, stats.Sweeps,
		100*stats.Share, 1000*stats.LongestPause)
	return nil
}

// stopped is the error of a scan: if it was interrupted, that, and not the connection that broke with it.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// check says what is wrong with the flags.
func (o wsScanOptions) check() error {
	byProcess := o.pid != 0 || o.ram != ramOptions{fd: -1}
	switch {
	case o.out == "", byProcess == (o.qmp != "" || o.memory != ""):
		return exitcode.Errorf(exitcode.Usage,
			"--out has to be given, and either --qemu and --memory or --pid")
	case byProcess && o.pid <= 0:
		return exitcode.Errorf(exitcode.Usage, "--pid has to be given, and be more than 0")
	case byProcess && o.ram.file != "" && o.ram.fd >= 0:
		return exitcode.Errorf(exitcode.Usage, "only one of --file and --fd can be given")
	case !byProcess && (o.qmp == "" || o.memory == ""):
		return exitcode.Errorf(exitcode.Usage, "--qemu and --memory have to be given")
	case o.within <= 0 || o.budget <= 0 || o.budget > 100:
		return exitcode.Errorf(exitcode.Usage,
			"--within must be more than 0, --budget more than 0 and at most 100 percent")
	}
	return nil
}

// scanned is a machine that is scanned from outside.
type scanned interface {
	scan.Guest
	Close() error
}

func openQEMU(ctx context.Context, o wsScanOptions) (scanned, error) {
	soon, cancel := context.WithTimeout(ctx, machineAnswer)
	defer cancel()
	g, err := qemu.Open(soon, o.qmp, o.memory)
	switch {
	case err != nil && ctx.Err() == nil && soon.Err() != nil:
		return nil, exitcode.WithHint(exitcode.ServerGone,
			fmt.Errorf("QEMU has not answered at %s for %v: %w", o.qmp, machineAnswer, err),
			"is its process stopped, or does another program use its QMP socket?")
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, exitcode.With(exitcode.NotFound, err)
	case errors.Is(err, qemu.ErrOtherMemory):
		return nil, exitcode.With(exitcode.NotImage, err)
	case err != nil:
		return nil, err
	}
	return g, nil
}

func openProcess(ctx context.Context, o wsScanOptions) (scanned, error) {
	wanted := process.Options{File: o.ram.file, Below4G: uint64(o.ram.below)}
	if o.ram.fd >= 0 {
		wanted.FD = &o.ram.fd
	}
	g, err := process.Open(ctx, o.pid, wanted)
	switch {
	case errors.Is(err, process.ErrAmbiguous):
		return nil, exitcode.WithHint(exitcode.NotFound, err, "say which one with --file or --fd")
	case errors.Is(err, process.ErrNoRAM):
		return nil, exitcode.WithHint(exitcode.NotFound, err,
			"start the VMM so that it maps the guest's RAM shared (QEMU: share=on)")
	case errors.Is(err, process.ErrLayout):
		return nil, exitcode.WithHint(exitcode.NotImage, err, "say how much RAM is below 4 GiB with --below-4g")
	case errors.Is(err, os.ErrNotExist):
		return nil, exitcode.With(exitcode.NotFound, err)
	case err != nil:
		return nil, mayTrace(err)
	}
	return g, nil
}

// mayTrace explains an error of missing rights.
func mayTrace(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return exitcode.WithHint(exitcode.Unsupported, err, "be root, or the VMM's user with "+
			"/proc/sys/kernel/yama/ptrace_scope 0; no debugger may trace the VMM")
	}
	return err
}

func scanGuest(ctx context.Context, g scanned, o wsScanOptions) (*wss.Set, scan.Stats, error) {
	tables, err := scan.NewTables(g, scan.TableOptions{Unseen: o.pid != 0})
	if err != nil {
		return nil, scan.Stats{}, err
	}
	s := scan.New(tables, scan.Options{Within: o.within, Budget: o.budget / 100})
	set, err := s.Estimate(ctx, o.within)
	if errors.Is(err, scan.ErrNoBits) {
		err = exitcode.WithHint(exitcode.Unsupported, err,
			"does the guest run, with several processes? it may also be idle")
	}
	if errors.Is(err, scan.ErrNoKernel) {
		err = exitcode.WithHint(exitcode.NotImage, err,
			"is the guest a 64-bit Linux that has booted, and is this its RAM? see --file and --below-4g")
	}
	if o.pid != 0 && errors.Is(err, os.ErrNotExist) {
		err = exitcode.With(exitcode.NotFound, err)
	}
	if err != nil {
		err = mayTrace(err)
	}
	return set, s.Stats(), err
}

// writeSet writes a working set into a file, replacing it in one step.
func writeSet(path string, set *wss.Set) error {
	return outfile.Write(path, outfile.Private, func(w io.Writer) error {
		_, err := set.WriteTo(w)
		return err
	})
}
