package vmm

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/meter"
	"github.com/thawfs/thaw/vmm/ram"
)

// The formula of stalls against a slow server: every page that the guest needs is delayed by a fixed
// time, so its stalled time must be at least the sum of the delays, and at most the run.
func TestStallsOfASlowServer(t *testing.T) {
	const delay = 3 * time.Millisecond
	dir := checkpointed(t, spec("random:30", "write", "0", "units", "60000"), ram.MinMemory, 500)
	s := serveJob(t, fuseJob{Dir: dir, Delay: delay})
	rep, err := Restore(t.Context(), s.mnt, Config{Log: testLog(t), Window: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	reads := cachedPages(t, s.mnt).Count() - rep.Restore.PageTablePages
	least := time.Duration(reads) * delay
	if len(rep.Stalls) != 1 || reads == 0 {
		t.Fatalf("%d reads, stalls %+v", reads, rep.Stalls)
	}
	st := rep.Stalls[0]
	stalled := time.Duration(st.Seconds * 1e9)
	t.Logf("%d reads of %v are %v; stalled %v of %.3f s", reads, delay, least, stalled, rep.RunSeconds)
	if stalled < least*99/100 || st.Seconds > rep.RunSeconds {
		t.Errorf("stalled for %v, reads took %v, the run %.3f s", stalled, least, rep.RunSeconds)
	}
	var sum, last time.Duration
	for _, i := range st.Intervals {
		if i.Start < last || i.End <= i.Start {
			t.Errorf("interval %+v after %v", i, last)
		}
		sum, last = sum+i.End-i.Start, i.End
	}
	// Seconds are rounded, and a sample is taken every 4 ms.
	if d := stalled - sum; d < -time.Microsecond || d > stalled/100+4*time.Millisecond {
		t.Errorf("the intervals have %v of %v", sum, stalled)
	}
}

// A guest that waits for no page does not stall, however long it is paused or waits in a device.
func TestNoStalls(t *testing.T) {
	m := newTestMachine(t, spec("idle", "set", "4KiB", "period", "5ms"), ram.MinMemory)
	runUntil(t, m, 3) // its memory is there now
	s := meter.SampleStalls(m.vcpus, m.begun, m.firstInstruction)
	before := m.vcpus[0].Stalled()
	begin := time.Now()
	for range 5 {
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		runUntil(t, m, m.ports.snapshot().Done+4)
	}
	m.Stop()
	if err := m.quiesce(stuckTime); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	stalled := m.vcpus[0].Stalled() - before
	t.Logf("stalled %v of %v", stalled, took)
	if stalled > took/2 {
		t.Errorf("stalled %v of %v", stalled, took)
	}
	s.Stop()
}

// A vCPU that is never started waits, but not for a page.
func TestNoStallsOfAnIdleVCPU(t *testing.T) {
	needKVM(t)
	var s screen
	cfg := s.config(t)
	cfg.For = 500 * time.Millisecond
	rep, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Stalls) != 2 || rep.Stalls[1].Seconds > rep.RunSeconds/2 {
		t.Errorf("stalls %+v of %.3f s", rep.Stalls, rep.RunSeconds)
	}
}

func TestMetrics(t *testing.T) {
	m := newTestMachine(t, spec("idle", "period", "1ms"), ram.MinMemory)
	runUntil(t, m, 2)
	w, s := m.watch(), meter.SampleStalls(m.vcpus, m.begun, m.firstInstruction)
	defer w.stop()
	defer s.Stop()
	socket := filepath.Join(t.TempDir(), "s")
	server, err := api.Serve(socket, apiMachine{m, w, s}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c := api.NewClient(socket)
	dir := filepath.Join(t.TempDir(), "saved")
	if _, err := c.Checkpoint(t.Context(), api.CheckpointRequest{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Checkpoint(t.Context(), api.CheckpointRequest{Dir: dir}); err == nil {
		t.Error("a second checkpoint to one directory")
	}
	if _, err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := c.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Checkpoints != 1 || got.FailedCheckpoints != 1 || got.LastCheckpoint == nil ||
		got.LastCheckpoint.Dir != dir || got.Pauses == 0 || got.PausedSeconds <= 0 ||
		len(got.VCPUs) != 1 || got.VCPUs[0].Exits["port I/O"] == 0 || got.DirtyPages == nil {
		t.Errorf("%+v", got)
	}
	st, err := c.Resume(t.Context())
	if err != nil || st.MappedFrom != dir || st.State != "running" {
		t.Errorf("%+v, %v", st, err)
	}
}
