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
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index/blob/disk"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/wss"
)

// labRun is one restore in a lab.
type labRun struct {
	method string        // as in the table
	name   string        // the checkpoint's name in the store
	policy fs.Policy     // what opening its memory brings
	disk   string        // device under the packs, or under the plain image
	runs   time.Duration // how long the restored machine works
	window time.Duration // what it is counted over, at most runs
	around bool          // the kernel reads around faults, as for any program that maps a file
}

// labResult is what one restore showed.
type labResult struct {
	pages  uint64 // of the image
	method wss.Method
	vcpus  []wss.Interval // stalls as the VMM saw them, on the clock of the method
}

// restore restores the machine from a mount of its own, whose page cache is cold: of the mount
// because it is new, of the packs because they are dropped or are on a modelled disk.
func (l *lab) restore(ctx context.Context, r labRun) (res labResult, err error) {
	server, err := l.serve(ctx, "mount", l.store, l.mnt, "--restore="+r.policy.String(),
		"--disk="+r.disk, "--record-window="+r.runs.String())
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	ref, err := resolveMount(l.mnt)
	if err != nil {
		return res, err
	}
	client, err := ref.server(ctx)
	if err != nil {
		return res, err
	}
	if err := client.Call(ctx, verbDrop, dropRequest{Name: r.name, Packs: true}, nil); err != nil {
		return res, fmt.Errorf("make it cold: %w", err)
	}
	if r.disk != disk.Native {
		if err := settle(ctx, l.store, r.disk); err != nil {
			return res, err
		}
	}
	return l.measure(ctx, r)
}

// restoreRaw restores the machine from the plain checkpoint, served as it is.
func (l *lab) restoreRaw(ctx context.Context, r labRun) (res labResult, err error) {
	if err := settle(ctx, filepath.Join(l.checkpoint, "memory"), r.disk); err != nil {
		return res, err
	}
	server, err := l.serve(ctx, "mount-raw", l.checkpoint, l.mnt, "--name="+r.name,
		"--restore="+r.policy.String(), "--disk="+r.disk)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	r.around = true
	return l.measure(ctx, r)
}

// measure restores the machine from what is mounted, and puts together what its VMM and the server
// of its memory saw.
func (l *lab) measure(ctx context.Context, r labRun) (res labResult, err error) {
	dir := filepath.Join(l.mnt, r.name)
	st, err := os.Stat(filepath.Join(dir, "memory"))
	if err != nil {
		return res, err
	}
	take := uint64(st.Size()) // for the mount's page cache
	if r.policy == fs.PolicyEager {
		take *= 2 // and for that of what lies beneath
	}
	if err := touchMemory(take); err != nil {
		return res, err
	}
	asked := time.Now()
	rep, err := l.restoreMachine(ctx, dir, asked, r)
	if err != nil {
		return res, err
	}
	stalls, err := readStalls(filepath.Join(dir, "stats.json"), asked)
	if err != nil {
		return res, err
	}
	return newLabResult(r.method, rep, stalls), nil
}

// newLabResult puts together what the VMM and the server of its memory saw of a restore.
func newLabResult(method string, rep *vmm.Report, stalls []wss.Interval) labResult {
	counts := *rep.Restore.Counts
	// They were taken some milliseconds after the window, which is what they are stated for.
	counts.Window = counts.Window.Round(100 * time.Millisecond)
	ready := time.Duration(rep.Restore.FirstInstructionSeconds * float64(time.Second))
	m := wss.NewMethod(method, counts, ready, ready+counts.Window, stalls)
	p := rep.Progress
	pace := wss.NewPace(p.Units, p.SliceSeconds, p.Slices,
		time.Duration(rep.RunSeconds*float64(time.Second)))
	m.Pace = &pace
	r := labResult{pages: rep.GuestPages, method: m}
	for _, v := range rep.Stalls {
		for _, i := range v.Intervals {
			r.vcpus = append(r.vcpus, wss.Interval{Start: ready + i.Start, End: ready + i.End})
		}
	}
	return r
}

// words sum up a restore.
func (r labResult) words() string {
	m := r.method
	return fmt.Sprintf("%s: ran after %.3f s; %s pages prefetched, %s of them used, %s fetched on "+
		"demand",
		m.Name, m.Ready.Seconds(), count(m.Prefetched), count(m.Skipped), count(m.Lazy))
}

// serve starts a server and waits until it is ready.
func (l *lab) serve(ctx context.Context, args ...string) (*child, error) {
	c := newChild("server", args...)
	if err := c.startServing(ctx); err != nil {
		return nil, err
	}
	l.children = append(l.children, c)
	return c, nil
}

// restoreMachine restores the machine from a checkpoint directory in a process of its own, lets it
// work for so long and ends it. What it tells is of the window at the beginning of that.
func (l *lab) restoreMachine(ctx context.Context, dir string, asked time.Time, r labRun) (
	*vmm.Report, error) {
	c := newChild("restored machine", "vm", "restore", dir, "--no-page-tables",
		fmt.Sprintf("--read-around=%v", r.around),
		"--for="+r.runs.String(), "--window="+r.window.String(),
		"--requested="+asked.Format(time.RFC3339Nano), "--json")
	if err := c.start(); err != nil {
		return nil, err
	}
	l.children = append(l.children, c)
	if err := c.wait(ctx); err != nil {
		return nil, err
	}
	var rep vmm.Report
	if err := json.Unmarshal(c.out.Bytes(), &rep); err != nil {
		return nil, fmt.Errorf("report of the machine: %w", err)
	}
	if rep.Restore == nil || rep.Restore.Counts == nil {
		return nil, exitcode.Errorf(exitcode.Unsupported,
			"this host does not tell which pages are in its page cache: %v", rep.Notes)
	}
	for _, n := range rep.Notes {
		l.a.note("          note: %s", n)
	}
	return &rep, nil
}

// readStalls reads from a stats.json when somebody waited for a page of the image, on a clock that
// began at asked.
func readStalls(path string, asked time.Time) ([]wss.Interval, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var stats struct {
		Stalls wss.StallSnapshot `json:"stalls"`
	}
	if err := json.Unmarshal(text, &stats); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return stats.Stalls.Intervals(asked), nil
}
