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
	warm   bool          // all of its memory is in the page cache of the mount before it is asked for
	set    *wss.Set      // the working set that it restores by; nil: none
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
	return fmt.Sprintf("%s: ran after %.3f s; %s pages prefetched, %s of them used; it waited %.3f s "+
		"for %s others", m.Name, m.Ready.Seconds(), count(m.Prefetched), count(m.Skipped),
		m.TotalStall().Seconds(), count(m.Lazy))
}

// restore runs a trial from a mount of its own and ends the mount again.
func (t *testbed) restore(ctx context.Context, r trial) (o outcome, err error) {
	mount := t.mountStore
	if r.method.raw {
		mount = t.mountRaw
	}
	server, err := mount(ctx, r)
	if server != nil {
		defer func() { err = errors.Join(err, server.stop(ctx)) }()
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
		"--disk="+r.disk, "--record-window="+r.window.String(), "--repack=off")
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
	if r.warm {
		err = fillCache(ctx, filepath.Join(dir, "memory"))
	} else {
		err = populateMemory(ctx, r.need(uint64(st.Size())))
	}
	if err != nil {
		return o, err
	}
	requested := time.Now()
	rep, err := t.restoreMachine(ctx, dir, requested, r)
	if err != nil {
		return o, err
	}
	seen, err := readStats(filepath.Join(dir, "stats.json"))
	if err != nil {
		return o, err
	}
	if r.set == nil {
		return newOutcome(r.method.name, rep, seen, requested), nil
	}
	touched, err := readSet(t.touched())
	if err != nil {
		return o, err
	}
	if seen.Playout == nil {
		return o, fmt.Errorf("%s: the server did not restore by the working set", dir)
	}
	window := time.Duration(rep.Restore.Window * float64(time.Second))
	counts, err := countPlayout(r.set, touched, seen.Playout.LatePages, window)
	if err != nil {
		return o, err
	}
	rep.Restore.Counts = &counts
	return newOutcome(r.method.name, rep, seen, requested), os.Remove(t.touched())
}

// touched is the file in which a VMM says what its guest touched.
func (t *testbed) touched() string { return filepath.Join(t.dir, "touched") }

// countPlayout counts the pages of a restore whose set came while the guest ran. The VMM's own count is of
// what was in memory before the first instruction; here a page of the set that came later, but before
// the guest wanted it, was prefetched too, and one that was late is one that the guest waited for.
func countPlayout(set, touched *wss.Set, late uint64, window time.Duration) (c wss.Counts, err error) {
	if set.ImagePages != touched.ImagePages {
		return c, fmt.Errorf("the working set is of an image of %d pages, the machine has %d",
			set.ImagePages, touched.ImagePages)
	}
	c = wss.Count(set.Bitmap(), touched.Bitmap(), window)
	late = min(late, c.Skipped)
	c.Skipped, c.Lazy = c.Skipped-late, c.Lazy+late
	return c, nil
}

// need is the memory that a restore of an image of some size takes: for the page cache of the mount,
// and where all of it is read at once for that of the files beneath.
func (r trial) need(size uint64) uint64 {
	if r.method.policy == fs.PolicyEager {
		size *= 2
	}
	return size
}

// newOutcome puts together what the VMM and the server of its memory saw of a restore.
func newOutcome(method string, rep *vmm.Report, seen stats, requested time.Time) outcome {
	counts := *rep.Restore.Counts
	// They were taken some milliseconds after the window, which is what they are stated for.
	counts.Window = counts.Window.Round(100 * time.Millisecond)
	ready := time.Duration(rep.Restore.FirstInstructionSeconds * float64(time.Second))
	m := report.NewMethod(method, counts, ready, ready+counts.Window, seen.Stalls.Intervals(requested))
	m.Longest = seen.longest(requested.Add(m.Ready), requested.Add(m.End))
	m.Playout = seen.Playout
	m.Pace = newPace(rep)
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
	args := []string{"vm", "restore", dir, "--no-page-tables",
		fmt.Sprintf("--read-around=%v", r.method.raw), // as for any program that maps a file
		"--for=" + r.window.String(), "--window=" + r.window.String(),
		"--requested=" + requested.Format(time.RFC3339Nano), "--json"}
	if r.set != nil {
		// What came before the guest wanted it is counted from what it touched. --count would say less,
		// and hold up the first instruction.
		args = append(args, "--touched="+t.touched())
	} else {
		args = append(args, "--count")
	}
	p, err := t.start("restored machine", args...)
	if err != nil {
		return nil, err
	}
	if err := p.wait(ctx); err != nil {
		return nil, errors.Join(err, p.stop(ctx))
	}
	var rep vmm.Report
	if err := json.Unmarshal(p.stdout.Bytes(), &rep); err != nil {
		return nil, fmt.Errorf("report of the machine: %w", err)
	}
	if rep.Restore == nil || rep.Restore.Counts == nil && r.set == nil {
		return nil, exitcode.Errorf(exitcode.Unsupported,
			"this host does not tell which pages are in its page cache: %v", rep.Notes)
	}
	for _, n := range rep.Notes {
		t.remark(n)
	}
	return &rep, nil
}

// newPace is how the guest went on with its work.
func newPace(rep *vmm.Report) *report.Pace {
	p := rep.Progress
	pace := report.NewPace(p.Units, p.SliceSeconds, p.Slices,
		time.Duration(rep.RunSeconds*float64(time.Second)))
	for _, m := range p.Marks {
		pace.Marks = append(pace.Marks, report.Mark{Units: m[0],
			At: time.Duration(m[1]) * time.Microsecond})
	}
	return &pace
}

// stats is what is read of a stats.json: when somebody waited for a page of the image, and how its
// working set was brought while the guest ran, where it was.
type stats struct {
	Stalls  wss.StallSnapshot `json:"stalls"`
	Playout *report.Playout   `json:"playout"`
}

func readStats(path string) (s stats, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// longest is the longest stall, exact, if it lies between two moments; else 0.
func (s stats) longest(from, to time.Time) time.Duration {
	start := s.Stalls.Origin.Add(s.Stalls.LongestAt)
	if s.Stalls.Requests == 0 || start.Before(from) || start.Add(s.Stalls.Longest).After(to) {
		return 0
	}
	return s.Stalls.Longest
}
