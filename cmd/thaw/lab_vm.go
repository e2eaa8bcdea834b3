package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/vmm/api"
)

// labGuest is the machine that a lab saves.
type labGuest struct {
	program string
	args    []string
	memory  sizeFlag
	warm    time.Duration // how long it works before it is saved
	scan    time.Duration // its access bits are scanned so long before; 0: they are not
	trace   time.Duration // its accesses are traced so long afterwards; 0: they are not
}

// save boots the machine, lets it work and writes its checkpoint.
func (l *lab) save(ctx context.Context, g labGuest) (rep api.CheckpointReply, err error) {
	l.stage("booting %q with %s: it fills its memory", g.program, size(int64(g.memory)))
	// Not in l.dir: a socket's path is short.
	run, err := os.MkdirTemp("", "thaw-vm-")
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	socket := filepath.Join(run, "vm.sock")
	args := []string{"vm", "run", g.program, "--memory=" + fmt.Sprint(int64(g.memory)),
		"--api=" + socket}
	for _, a := range g.args {
		args = append(args, "--arg="+a)
	}
	c := newChild("machine", args...)
	if err := c.start(); err != nil {
		return rep, err
	}
	l.children = append(l.children, c)
	machine := api.NewClient(socket)
	if err := l.awaitWork(ctx, c, machine, g.warm); err != nil {
		return rep, err
	}
	st, err := machine.Status(ctx)
	if err != nil {
		return rep, err
	}
	l.stage("it has done %s %s; saving it%s", count(st.Done), st.Units, g.estimates())
	rep, err = machine.Checkpoint(ctx, api.CheckpointRequest{Dir: l.checkpoint, Stop: true,
		ScanSeconds: g.scan.Seconds(), TraceSeconds: g.trace.Seconds()})
	if err != nil {
		return rep, fmt.Errorf("save the machine: %w", err)
	}
	l.stage("saved %s in %.1f s", size(int64(rep.WrittenBytes)), rep.Seconds)
	if s := rep.Scan; s != nil {
		l.stage("access bits: %s pages; %d sweeps took %.2f %% of its time", count(s.Pages), s.Sweeps,
			100*s.Share)
	}
	if t := rep.Trace; t != nil {
		l.stage("trace: %s pages in %.1f s, %s", count(t.Pages), t.Seconds, t.Way)
	}
	if rep.Note != "" {
		l.a.note("          note: %s", rep.Note)
	}
	return rep, c.wait(ctx)
}

// estimates says how the working set is found out.
func (g labGuest) estimates() (s string) {
	if g.scan > 0 {
		s += fmt.Sprintf(", access bits scanned for %v before", g.scan)
	}
	if g.trace > 0 {
		s += fmt.Sprintf(", accesses traced for %v afterwards", g.trace)
	}
	return s
}

// pollMachine is how often a machine is asked whether it is ready.
const pollMachine = 20 * time.Millisecond

// awaitWork waits until the guest has filled its memory and worked for a while.
func (l *lab) awaitWork(ctx context.Context, c *child, machine *api.Client,
	warm time.Duration) error {
	tick := time.NewTicker(pollMachine)
	defer tick.Stop()
	for {
		// An error means that the socket is not there yet, or that the machine has ended.
		if st, err := machine.Status(ctx); err == nil && st.Ready {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return errors.Join(c.failure(), fmt.Errorf("the machine ended before it worked"))
		case <-tick.C:
		}
	}
	l.stage("it works, for %v", warm)
	before, err := vcpuKernelTime(c.cmd.Process.Pid)
	if err != nil {
		return err
	}
	begin := time.Now()
	timer := time.NewTimer(warm)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return errors.Join(c.failure(), fmt.Errorf("the machine ended too early"))
	case <-timer.C:
	}
	after, err := vcpuKernelTime(c.cmd.Process.Pid)
	l.kernelShare = (after - before).Seconds() / max(time.Since(begin).Seconds(), 1e-9)
	return err
}
