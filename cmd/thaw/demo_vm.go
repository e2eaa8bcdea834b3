package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/wss"
)

// save boots the machine, lets it work and writes its checkpoint.
func (d *demo) save(ctx context.Context) (err error) {
	d.stage("booting %q with %s: it fills its memory", d.o.guest, size(int64(d.o.memory)))
	// Not in d.dir: a socket's path is short.
	run, err := os.MkdirTemp("", "thaw-vm-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	socket := filepath.Join(run, "vm.sock")
	args := []string{"vm", "run", d.o.guest, "--memory=" + fmt.Sprint(int64(d.o.memory)),
		"--api=" + socket}
	for _, a := range d.o.args {
		args = append(args, "--arg="+a)
	}
	c := newChild("machine", args...)
	if err := c.start(); err != nil {
		return err
	}
	d.children = append(d.children, c)
	machine := api.NewClient(socket)
	if err := d.awaitWork(ctx, c, machine); err != nil {
		return err
	}
	st, err := machine.Status(ctx)
	if err != nil {
		return err
	}
	d.stage("it has done %s %s; saving it", count(st.Done), st.Units)
	rep, err := machine.Checkpoint(ctx, api.CheckpointRequest{Dir: d.checkpoint, Stop: true})
	if err != nil {
		return fmt.Errorf("save the machine: %w", err)
	}
	d.stage("saved %s in %.1f s", size(int64(rep.WrittenBytes)), rep.Seconds)
	return c.wait(ctx)
}

// pollMachine is how often a machine is asked whether it is ready.
const pollMachine = 20 * time.Millisecond

// awaitWork waits until the guest has filled its memory and worked for a while.
func (d *demo) awaitWork(ctx context.Context, c *child, machine *api.Client) error {
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
	d.stage("it works, for %v", d.o.warm)
	timer := time.NewTimer(d.o.warm)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return errors.Join(c.failure(), fmt.Errorf("the machine ended too early"))
	case <-timer.C:
		return nil
	}
}

// restoredMachine is what a VMM tells of a restored machine after its window.
type restoredMachine struct {
	ready    time.Duration // the first instruction, after it was asked for
	counts   wss.Counts
	progress demoProgress
}

// restoreMachine restores the machine from a checkpoint directory in a process of its own, lets it
// work for so long and ends it. What it tells is of the window at the beginning of that.
func (d *demo) restoreMachine(ctx context.Context, dir string, asked time.Time,
	runs time.Duration) (r restoredMachine, err error) {
	c := newChild("restored machine", "vm", "restore", dir, "--for="+runs.String(),
		"--window="+d.o.window.String(), "--requested="+asked.Format(time.RFC3339Nano), "--json")
	if err := c.start(); err != nil {
		return r, err
	}
	d.children = append(d.children, c)
	if err := c.wait(ctx); err != nil {
		return r, err
	}
	var rep vmm.Report
	if err := json.Unmarshal(c.out.Bytes(), &rep); err != nil {
		return r, fmt.Errorf("report of the machine: %w", err)
	}
	if rep.Restore == nil || rep.Restore.Counts == nil {
		return r, exitcode.Errorf(exitcode.Unsupported,
			"this host does not tell which pages are in its page cache: %v", rep.Notes)
	}
	for _, n := range rep.Notes {
		d.a.note("          note: %s", n)
	}
	// The counts were taken some milliseconds after the window, which is what they are stated for.
	rep.Restore.Counts.Window = rep.Restore.Counts.Window.Round(100 * time.Millisecond)
	return restoredMachine{
		ready:    time.Duration(rep.Restore.FirstInstructionSeconds * float64(time.Second)),
		counts:   *rep.Restore.Counts,
		progress: progressOf(rep.Progress, d.o.window),
	}, nil
}

// progressOf sums up what a machine did in the window.
func progressOf(p vmm.Progress, window time.Duration) demoProgress {
	d := demoProgress{Units: p.Units}
	for i, n := range p.Slices {
		end := time.Duration(float64(i+1) * p.SliceSeconds * float64(time.Second))
		if end <= time.Second {
			d.FirstSecond += n
		}
		if end <= window {
			d.Total += n
		}
	}
	d.PerSecond = float64(d.Total) / window.Seconds()
	return d
}
