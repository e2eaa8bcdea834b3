package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/thawfs/thaw/vmm/api"
)

// Guest is the machine that is saved for a comparison.
type Guest struct {
	Program string   // heap, stream, idle or random:PCT
	Args    []string // options NAME=VALUE of the program
	Memory  int64    // bytes

	Warm  time.Duration // how long it works before it is saved
	Scan  time.Duration // how long its access bits are scanned before that; 0: they are not
	Trace time.Duration // how long its accesses are traced afterwards; 0: they are not
}

// String is the program with its options and the memory, as the table names the guest.
func (g Guest) String() string {
	return strings.Join(append([]string{g.Program}, g.Args...), " ") + " with " + size(g.Memory)
}

// estimates says how its working set is estimated.
func (g Guest) estimates() (s string) {
	if g.Scan > 0 {
		s += fmt.Sprintf(", access bits scanned for %v before", g.Scan)
	}
	if g.Trace > 0 {
		s += fmt.Sprintf(", accesses traced for %v afterwards", g.Trace)
	}
	return s
}

// saved is what is known of a guest that was saved.
type saved struct {
	checkpoint api.CheckpointReply
	// kernelShare is how much of the time its vCPUs were in the kernel while nobody looked for its
	// working set.
	kernelShare float64
}

// save boots a machine, lets it work and writes its checkpoint.
func (t *testbed) save(ctx context.Context, g Guest) (s saved, err error) {
	t.stage("booting %q with %s: it fills its memory", g.Program, size(g.Memory))
	// Not in t.dir: the path of a socket must be short.
	run, err := os.MkdirTemp("", "thaw-vm-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	socket := filepath.Join(run, "vm.sock")
	args := []string{"vm", "run", g.Program, "--memory=" + fmt.Sprint(g.Memory), "--api=" + socket}
	for _, a := range g.Args {
		args = append(args, "--arg="+a)
	}
	p, err := t.start("machine", args...)
	if err != nil {
		return s, err
	}
	machine := api.NewClient(socket)
	if s.kernelShare, err = t.warmUp(ctx, p, machine, g.Warm); err != nil {
		return s, err
	}
	st, err := machine.Status(ctx)
	if err != nil {
		return s, err
	}
	t.stage("it has done %s %s; saving it%s", count(st.Done), st.Units, g.estimates())
	s.checkpoint, err = machine.Checkpoint(ctx, api.CheckpointRequest{Dir: t.checkpoint, Stop: true,
		ScanSeconds: g.Scan.Seconds(), TraceSeconds: g.Trace.Seconds()})
	if err != nil {
		return s, fmt.Errorf("save the machine: %w", err)
	}
	t.tellSaved(s.checkpoint)
	return s, p.wait(ctx)
}

func (t *testbed) tellSaved(c api.CheckpointReply) {
	t.stage("saved %s in %.1f s", size(int64(c.WrittenBytes)), c.Seconds)
	if s := c.Scan; s != nil {
		t.stage("access bits: %s pages; %d sweeps took %.2f %% of its time", count(s.Pages), s.Sweeps,
			100*s.Share)
	}
	if tr := c.Trace; tr != nil {
		t.stage("trace: %s pages in %.1f s, %s", count(tr.Pages), tr.Seconds, tr.Way)
	}
	t.remark(c.Note)
}

// pollInterval is how often a machine is asked whether it is ready.
const pollInterval = 20 * time.Millisecond

// warmUp waits until the guest has filled its memory, then lets it work for a while. It returns the
// share of that while that the vCPUs spent in the kernel.
func (t *testbed) warmUp(ctx context.Context, p *process, machine *api.Client, d time.Duration) (
	kernelShare float64, err error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		// An error means that the socket is not there yet, or that the machine has ended.
		if st, err := machine.Status(ctx); err == nil && st.Ready {
			break
		}
		if err := p.runsUntil(ctx, tick.C); err != nil {
			return 0, err
		}
	}
	t.stage("it works, for %v", d)
	before, err := vcpuKernelTime(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	if err := p.runsUntil(ctx, timer.C); err != nil {
		return 0, err
	}
	after, err := vcpuKernelTime(p.cmd.Process.Pid)
	return (after - before).Seconds() / max(time.Since(begin).Seconds(), 1e-9), err
}

// runsUntil waits for a moment; that the process ends before it is an error.
func (p *process) runsUntil(ctx context.Context, moment <-chan time.Time) error {
	select {
	case <-moment:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done:
		return errors.Join(p.failure(), fmt.Errorf("the %s ended too early", p.name))
	}
}
