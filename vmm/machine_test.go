package vmm

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/vmm/vcpu"
)

// programs are short guest programs: with an option that ends them, and the number of units at the end.
var programs = []struct {
	spec  guest.Spec
	units uint64 // at the end
	at    uint64 // where to take a checkpoint
}{
	{spec("heap", "units", "60000", "set", "4MiB", "cold", "100"), 60000, 20000},
	{spec("stream", "units", "60", "set", "2MiB", "period", "5ms"), 60, 20},
	{spec("idle", "units", "30", "period", "10ms"), 30, 10},
	{spec("random:40", "units", "60000", "seed", "7"), 60000, 20000},
	{spec("pair", "units", "300", "set", "256KiB"), 300, 100},
}

func TestGuestsFinish(t *testing.T) {
	for _, p := range programs {
		t.Run(p.spec.Program, func(t *testing.T) {
			needKVM(t)
			rep, err := Run(t.Context(), Config{Guest: p.spec, MemoryBytes: testMemory, Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			if rep.End != endFinished || rep.Done < p.units || rep.Progress.Total != rep.Done {
				t.Errorf("report: %+v", rep)
			}
		})
	}
}

// A machine that is saved and restored in another process does the rest of its work there, and finds
// every byte unchanged.
func TestRestoreGoesOn(t *testing.T) {
	for _, p := range programs {
		t.Run(p.spec.Program, func(t *testing.T) {
			dir := checkpointed(t, p.spec, testMemory, p.at)
			res := restoreChild(t, childJob{Dir: dir}, nil)
			if res.Err != "" {
				t.Fatal(res.Err)
			}
			r := res.Report
			if r.End != endFinished || r.Done < p.units || r.Done-r.Progress.Total < p.at {
				t.Errorf("report: %+v", r)
			}
			if r.Restore.FirstInstructionSeconds <= 0 || r.Restore.TouchedPages == 0 {
				t.Errorf("restore: %+v", r.Restore)
			}
		})
	}
}

// Checkpoints of checkpoints: each in its own process, mapped from the one before.
func TestGenerations(t *testing.T) {
	dir := checkpointed(t, spec("heap", "set", "4MiB", "cold", "100"), testMemory, 20000)
	first := dir
	for range 3 {
		var done uint64
		next := filepath.Join(t.TempDir(), "next")
		res := restoreChild(t, childJob{Dir: dir}, func(c *api.Client) {
			s := await(t, c, func(s api.Status) bool { return s.DoneNow > 20000 })
			rep, err := c.Checkpoint(t.Context(), api.CheckpointRequest{Dir: next, Stop: true})
			if err != nil {
				t.Fatal(err)
			}
			done = s.Done
			t.Logf("%+v", rep)
		})
		if res.Err != "" || res.Report.End != endStopped || res.Report.Done < done {
			t.Fatalf("generation: %q %+v", res.Err, res.Report)
		}
		dir = next
	}
	info, err := os.ReadFile(filepath.Join(dir, state.InfoFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", info)
	// The first checkpoint is still right: its pages were never changed.
	for _, d := range []string{first, dir} {
		if res := restoreChild(t, childJob{Dir: d, For: time.Second}, nil); res.Err != "" {
			t.Errorf("%s: %s", d, res.Err)
		}
	}
}

// Two restores of one checkpoint do the same work in the same order, and have marks at the same units,
// so their times can be compared.
func TestRestoreIsRepeatable(t *testing.T) {
	dir := checkpointed(t, spec("heap", "set", "4MiB", "units", "60000"), testMemory, 20000)
	var images [2][]byte
	var told [2][]uint64
	for i := range images {
		l, err := loadDir(dir, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		if err := l.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.quiesce(stuckTime); err != nil {
			t.Fatal(err)
		}
		images[i] = make([]byte, l.mem.Size())
		if _, err := l.mem.ReadAt(images[i], 0); err != nil {
			t.Fatal(err)
		}
		work := l.ports.progress("")
		for _, m := range work.Marks {
			told[i] = append(told[i], m[0])
		}
		if n := len(told[i]); n < 100 || told[i][n-1] != work.Total {
			t.Errorf("%d reports of %d units: %v", n, work.Total, told[i])
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if string(images[0]) != string(images[1]) {
		t.Error("two restores ended with different memory")
	}
	if !slices.Equal(told[0], told[1]) {
		t.Errorf("one restore told of its work at %v, the other at %v", told[0], told[1])
	}
}

// State that is read, written into a new machine and read again is the same state.
func TestStateRoundTrip(t *testing.T) {
	dir := checkpointed(t, spec("registers"), ram.MinMemory, 100)
	c, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := c.Machine
	l, err := loadDir(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got, err := l.save()
	if err != nil {
		t.Fatal(err)
	}
	a, b := want.VCPUs[0], got.VCPUs[0]
	// The time stamp counter runs on.
	dropMSR(&a, 0x10)
	dropMSR(&b, 0x10)
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("state changed on its way (-saved +restored):\n%s", d)
	}
	if d := cmp.Diff(want.Ports, got.Ports); d != "" {
		t.Errorf("ports: %s", d)
	}
}

func dropMSR(s *state.VCPU, index uint32) {
	for i, m := range s.MSRs {
		if m.Index == index {
			s.MSRs = append(s.MSRs[:i:i], s.MSRs[i+1:]...)
			return
		}
	}
}

// Registers of all kinds survive, at many points of a program that only checks them.
func TestRegistersSurvive(t *testing.T) {
	m := newTestMachine(t, spec("registers"), ram.MinMemory)
	runUntil(t, m, 10)
	for range 10 {
		dir := checkpoint(t, m)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		l, err := loadDir(dir, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		m = l.Machine
		t.Cleanup(func() { l.Close() })
		runUntil(t, m, m.ports.snapshot().Done+10)
	}
}

// A pause at any moment loses nothing: the guest would notice a port access that was done twice or not
// at all, and its memory does not change while it is paused.
func TestPauseResume(t *testing.T) {
	m := newTestMachine(t, spec("stream", "set", "2MiB", "period", "1ms"), testMemory)
	runUntil(t, m, 1)
	for i := range 200 {
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.save(); err != nil {
			t.Fatal(err)
		}
		done := m.ports.snapshot().Done
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		if now := m.ports.snapshot().Done; now != done {
			t.Fatalf("round %d: a paused machine went on from %d to %d", i, done, now)
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, m, m.ports.snapshot().Done+5)
}

func TestStateIsRefusedWhileRunning(t *testing.T) {
	m := newTestMachine(t, spec("idle"), ram.MinMemory)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.save(); !errors.Is(err, vcpu.ErrRunning) {
		t.Errorf("save of a running machine: %v", err)
	}
	err := m.vcpus[0].Do(func() error { return nil })
	if !errors.Is(err, vcpu.ErrRunning) {
		t.Errorf("job for a running vCPU: %v", err)
	}
	m.Stop()
	if err := m.Wait(context.Background()); !errors.Is(err, errStopped) {
		t.Errorf("end: %v", err)
	}
	for name, f := range map[string]func() error{"pause": m.Pause, "resume": m.Resume,
		"checkpoint": func() error {
			_, err := m.Checkpoint(context.Background(), t.TempDir()+"/x")
			return err
		}} {
		if err := f(); !errors.Is(err, errEnded) {
			t.Errorf("%s of an ended machine: %v", name, err)
		}
	}
}

func TestRunEnds(t *testing.T) {
	needKVM(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cfg := Config{Guest: spec("idle"), MemoryBytes: ram.MinMemory, Log: testLog(t),
		Started: func() { cancel(cause) }}
	rep, err := Run(ctx, cfg)
	if !errors.Is(err, cause) || rep.End != endInterrupted {
		t.Errorf("interrupted: %+v, %v", rep, err)
	}
	cfg.Started, cfg.For = nil, 50*time.Millisecond
	rep, err = Run(t.Context(), cfg)
	if err != nil || rep.End != endTime || rep.RunSeconds < 0.05 {
		t.Errorf("time: %+v, %v", rep, err)
	}
}

// RAM continues above a hole of the address space, and the image contains the hole.
func TestMemoryAboveTheHole(t *testing.T) {
	needKVM(t)
	regions := []ram.Region{{GPA: 0, Size: 24 << 20}, {GPA: 1 << 32, Size: 8 << 20}}
	m, err := newIn(regions, Config{Guest: spec("random:100", "units", "10000"), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The program has filled all pages, the last one of RAM too.
	page := make([]byte, pageSize)
	if _, err := m.mem.ReadAt(page, int64(m.mem.Size()-pageSize)); err != nil {
		t.Fatal(err)
	}
	if gfn := binary.LittleEndian.Uint64(page) & (1<<40 - 1); gfn != m.mem.Size()/pageSize-1 {
		t.Errorf("the last page says that it is gfn %#x", gfn)
	}
}
