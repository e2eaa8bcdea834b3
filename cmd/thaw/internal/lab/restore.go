package lab

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
	"github.com/thawfs/thaw/wss/report"
)

// trial is one restore of the machine.
type trial struct {
	method method
	name   string        // the checkpoint's name on the mount
	disk   string        // device under the packs, or under the plain image
	window time.Duration // how long the restored machine works; what it does then is counted
}

// outcome is what one restore showed.
type outcome struct {
	pages  uint64 // of the image
	method report.Method
	vcpus  []wss.Interval // stalls as the VMM saw them, on the clock of the method
}

// String sums it up.
func (o outcome) String() string {
	m := o.method
	return fmt.Sprintf("%s: ran after %.3f s; %s pages prefetched, %s of them used, %s fetched on "+
		"demand",
		m.Name, m.Ready.Seconds(), count(m.Prefetched), count(m.Skipped), count(m.Lazy))
}

// restore runs a trial from a mount of its own and ends the mount again.
func (t *testbed) restore(ctx context.Context, r trial) (o outcome, err error) {
	mount := t.mountStore
	if r.method.raw {
		mount = t.mountRaw
	}
	server, err := mount(ctx, r)
	if server != nil {
		defer func() { err = errors.Join(err, server.stop()) }()
	}
	if err != nil {
		return o, err
	}
	return t.measure(ctx, r)
}

// mountStore serves the store. The page cache is cold: that of the mount because it is new, that of
// the packs because they are dropped, or lie on a simulated disk.
func (t *testbed) mountStore(ctx context.Context, r trial) (*process, error) {
	server, err := t.serve(ctx, "mount", t.store, t.mnt, "--restore="+r.method.policy.String(),
		"--disk="+r.disk, "--record-window="+r.window.String())
	if err != nil {
		return nil, err
	}
	if err := t.program.Drop(ctx, t.mnt, r.name); err != nil {
		return server, fmt.Errorf("make it cold: %w", err)
	}
	if r.disk == disk.Native {
		return server, nil
	}
	return server, prepareCache(ctx, t.store, r.disk)
}

// mountRaw serves the checkpoint as it is.
func (t *testbed) mountRaw(ctx context.Context, r trial) (*process, error) {
	if err := prepareCache(ctx, filepath.Join(t.checkpoint, "memory"), r.disk); err != nil {
		return nil, err
	}
	return t.serve(ctx, RawCommand, t.checkpoint, t.mnt, r.name, r.method.policy.String(), r.disk)
}

// measure restores the machine from what is mounted, and puts together what its VMM and the server
// of its memory saw.
func (t *testbed) measure(ctx context.Context, r trial) (o outcome, err error) {
	dir := filepath.Join(t.mnt, r.name)
	st, err := os.Stat(filepath.Join(dir, "memory"))
	if err != nil {
		return o, err
	}
	need := uint64(st.Size()) // for the page cache of the mount
	if r.method.policy == fs.PolicyEager {
		need *= 2 // and for that of the files beneath
	}
	if err := populateMemory(need); err != nil {
		return o, err
	}
	requested := time.Now()
	rep, err := t.restoreMachine(ctx, dir, requested, r)
	if err != nil {
		return o, err
	}
	stalls, err := readStalls(filepath.Join(dir, "stats.json"), requested)
	if err != nil {
		return o, err
	}
	if !r.method.raw {
		came, err := readFollowed(filepath.Join(dir, "stats.json"))
		if err != nil {
			return o, err
		}
		*rep.Restore.Counts = came.add(*rep.Restore.Counts)
	}
	return newOutcome(r.method.name, rep, stalls), nil
}

// newOutcome puts together what the VMM and the server of its memory saw of a restore.
func newOutcome(method string, rep *vmm.Report, stalls []wss.Interval) outcome {
	counts := *rep.Restore.Counts
	// They were taken some milliseconds after the window, which is what they are stated for.
	counts.Window = counts.Window.Round(100 * time.Millisecond)
	ready := time.Duration(rep.Restore.FirstInstructionSeconds * float64(time.Second))
	m := report.NewMethod(method, counts, ready, ready+counts.Window, stalls)
	p := rep.Progress
	pace := report.NewPace(p.Units, p.SliceSeconds, p.Slices,
		time.Duration(rep.RunSeconds*float64(time.Second)))
	m.Pace = &pace
	o := outcome{pages: rep.GuestPages, method: m}
	for _, v := range rep.Stalls {
		for _, i := range v.Intervals {
			o.vcpus = append(o.vcpus, wss.Interval{Start: ready + i.Start, End: ready + i.End})
		}
	}
	return o
}

// restoreMachine restores the machine from a checkpoint directory in a process of its own, lets it
// work for the window and returns its report. The process has ended then, however it went.
func (t *testbed) restoreMachine(ctx context.Context, dir string, requested time.Time, r trial) (
	*vmm.Report, error) {
	p, err := t.start("restored machine", "vm", "restore", dir, "--no-page-tables",
		fmt.Sprintf("--read-around=%v", r.method.raw), // as for any program that maps a file
		"--for="+r.window.String(), "--window="+r.window.String(),
		"--requested="+requested.Format(time.RFC3339Nano), "--json")
	if err != nil {
		return nil, err
	}
	if err := p.wait(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	var rep vmm.Report
	if err := json.Unmarshal(p.stdout.Bytes(), &rep); err != nil {
		return nil, fmt.Errorf("report of the machine: %w", err)
	}
	if rep.Restore == nil || rep.Restore.Counts == nil {
		return nil, exitcode.Errorf(exitcode.Unsupported,
			"this host does not tell which pages are in its page cache: %v", rep.Notes)
	}
	for _, n := range rep.Notes {
		t.remark(n)
	}
	return &rep, nil
}

// readStalls reads from a stats.json when somebody waited for a page of the image, on a clock that
// began at requested.
func readStalls(path string, requested time.Time) ([]wss.Interval, error) {
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
	return stats.Stalls.Intervals(requested), nil
}
