package vmm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/trace"
	"github.com/thawfs/thaw/wss"
)

// TestTrace traces a machine from its checkpoint to the end of its program, and compares the record
// with what the page table says was touched, page by page.
func TestTrace(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "random:20", Args: map[string]string{"units": "6000"}},
		32<<20)
	dir := filepath.Join(t.TempDir(), "cp")
	stats, err := m.CheckpointWith(t.Context(), dir, CheckpointOptions{Trace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Trace == nil {
		t.Skip(stats.Note)
	}
	if err := m.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	touched, _, err := m.mem.scan()
	if err != nil {
		t.Fatal(err)
	}
	set := readSet(t, dir)
	if got := set.Bitmap(); !got.Equal(touched) {
		t.Errorf("traced %d pages, touched %d; %d only traced", got.Count(), touched.Count(),
			got.AndNot(touched).Count())
	}
	if set.Pages() != stats.Trace.Pages || stats.Trace.LostEvents != 0 {
		t.Errorf("%+v, %d pages in the record", stats.Trace, set.Pages())
	}
	if trace.Probe() != nil {
		t.Skipf("no tracepoint, so neither order nor vCPUs: %v", trace.Probe())
	}
	// A KVM without second-level tables goes through the guest's own and through its task state
	// segment by itself: no fault, no event. All else has one.
	tables := layOutPageTables([]Region{{0, 32 << 20}}).root() / pageSize
	end := tables + pageTableBytes([]Region{{0, 32 << 20}})/pageSize
	silent := uint64(0)
	for i, r := range set.Runs {
		if r.Source != wss.SourceTrace || i > 0 && r.At < set.Runs[i-1].At {
			t.Fatalf("run %d: %+v", i, r)
		}
		if r.VCPU == 0 {
			continue
		}
		silent += r.Count
		if r.GFN+r.Count > guest.LoadAddr/pageSize && (r.GFN < tables || r.GFN+r.Count > end) {
			t.Errorf("no event for %+v", r)
		}
	}
	if stats.Trace.SilentPages != silent {
		t.Errorf("%d pages without an event, %d in the record", stats.Trace.SilentPages, silent)
	}
	t.Logf("%d pages in %d runs, %.3f s in the kernel", set.Pages(), len(set.Runs),
		stats.Trace.KernelSeconds)
}

// TestTraceTwoVCPUs: each vCPU's touches are its own.
func TestTraceTwoVCPUs(t *testing.T) {
	if !slices.Contains(guest.Names(), "pair") {
		t.Skip("needs the guest program pair")
	}
	m := startReady(t, guest.Spec{Program: "pair"}, 16<<20)
	dir := filepath.Join(t.TempDir(), "cp")
	stats, err := m.CheckpointWith(t.Context(), dir, CheckpointOptions{Trace: 300 * time.Millisecond,
		Stop: true})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Trace == nil || stats.Trace.Events == 0 {
		t.Skip("no tracepoint: ", stats.Note)
	}
	vcpus := make(map[int]bool)
	for _, r := range readSet(t, dir).Runs {
		vcpus[r.VCPU] = true
	}
	if !vcpus[0] || !vcpus[1] {
		t.Errorf("touches of vCPUs %v", vcpus)
	}
	if err := m.Wait(t.Context()); err != ErrStopped {
		t.Errorf("the machine ended with %v", err)
	}
}

// TestTraceRefused: what cannot be traced says so, and leaves nothing behind.
func TestTraceRefused(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "idle"}, 16<<20)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "cp")
	_, err := m.CheckpointWith(t.Context(), dir, CheckpointOptions{Trace: time.Second})
	if err == nil {
		t.Error("a paused machine was traced")
	}
	if list, _ := os.ReadDir(filepath.Dir(dir)); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

// startReady starts a guest and waits until it has filled its memory.
func startReady(t *testing.T, spec guest.Spec, memory uint64) *Machine {
	t.Helper()
	m := newTestMachine(t, spec, memory)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	for m.ports.snapshot().Ready == 0 {
		select {
		case <-m.ended:
			t.Fatalf("the guest ended: %v", m.Wait(t.Context()))
		case <-time.After(time.Millisecond):
		}
	}
	return m
}

func readSet(t *testing.T, dir string) *wss.Set {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, setFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set, err := wss.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return set
}
