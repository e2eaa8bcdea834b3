package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// The exit status: those of thaw for the same reasons.
const (
	statusFailure     = 1
	statusUsage       = 4
	statusUnsupported = 22
)

// errNoKVM is a host that cannot run machines.
var errNoKVM = errors.New("this host cannot run machines")

// errUsage is a command line that is wrong.
var errUsage = errors.New("usage")

// options are the command line.
type options struct {
	quick     bool
	disks     []string // none: all of the plan
	workloads []string // none: all of the plan
	out       string   // directory for JSON and tables; "": none
	thaw      string   // the binary; "": it is built
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "paper:", err)
	}
	os.Exit(status(err))
}

func status(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errNoKVM):
		return statusUnsupported
	case errors.Is(err, errUsage):
		return statusUsage
	}
	return statusFailure
}

// run is the command: it refuses what cannot be done before it does anything.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	jobs, err := plan(o)
	if err != nil {
		return err
	}
	if err := usableKVM("/dev/kvm"); err != nil {
		return err
	}
	l, err := newLab(ctx, o, stderr)
	if err != nil {
		return err
	}
	outcomes, err := l.all(ctx, jobs)
	if len(outcomes) > 0 {
		err = errors.Join(err, l.finish(stdout, outcomes))
	}
	return errors.Join(err, l.close())
}

// parse reads the command line.
func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("paper", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.quick, "quick", false, "a trial of the command: small machines, a minute")
	disks := f.String("disk", "", "disks, by commas (default native,hdd; with --quick native)")
	workloads := f.String("workload", "", "workloads, by commas (default all)")
	f.StringVar(&o.out, "out", "", "keep the JSON of every comparison and the tables in `DIR`")
	f.StringVar(&o.thaw, "thaw", "", "the thaw `BINARY` (default: it is built)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%w: there are no arguments, but %q was given", errUsage, f.Args())
	}
	o.disks, o.workloads = list(*disks), list(*workloads)
	return o, nil
}

// list are the words between commas.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// usableKVM says why a host cannot run machines.
func usableKVM(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w; nothing was measured", errNoKVM, err)
	}
	return f.Close()
}

// build builds thaw into a directory.
func build(ctx context.Context, dir string, stderr io.Writer) (string, error) {
	binary := filepath.Join(dir, "thaw")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary,
		"github.com/thawfs/thaw/cmd/thaw")
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build thaw: %w", err)
	}
	return binary, nil
}
