package vmm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

// tracedToEnd traces a machine, from when it is ready to the end of its program.
func tracedToEnd(t *testing.T, m *Machine, way string) (*wss.Set, *api.TraceStats) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cp")
	stats, err := m.checkpoint(t.Context(), dir, checkpointOptions{Trace: time.Minute, way: way})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Trace == nil {
		t.Skip(stats.Note)
	}
	if err := m.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	set := readSet(t, dir)
	if set.Pages() != stats.Trace.Pages || stats.Trace.LostEvents != 0 {
		t.Errorf("%+v, %d pages in the record", stats.Trace, set.Pages())
	}
	t.Logf("%d pages in %d runs, %.3f s in the kernel: %s", set.Pages(), len(set.Runs),
		stats.Trace.KernelSeconds, set.Way)
	return set, stats.Trace
}

var tracedSpec = guest.Spec{Program: "random:20", Args: map[string]string{"units": "60000"}}

// TestTrace traces a machine from its checkpoint to the end of its program, and compares the record
// with the touched pages in the page table, page by page.
func TestTrace(t *testing.T) {
	m := startReady(t, tracedSpec, 32<<20)
	set, stats := tracedToEnd(t, m, "")
	touched, _, err := m.mem.Scan()
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Bitmap(); !got.Equal(touched) {
		t.Errorf("traced %d pages, touched %d; %d only traced", got.Count(), touched.Count(),
			got.AndNot(touched).Count())
	}
	switch {
	case strings.HasPrefix(set.Way, wayFaults): // TestTraceWays looks at the rest
		return
	case strings.HasPrefix(set.Way, wayScans):
		t.Skipf("no tracepoint, so neither order nor vCPUs: %s", set.Way)
	}
	// A KVM without second-level tables reads the guest's own tables and its task state segment itself,
	// without a fault and an event. All other pages have an event.
	tables := uint64(guest.Reserved / pageSize)
	end := tables + tableBytes([]ram.Region{{GPA: 0, Size: 32 << 20}})/pageSize
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
	if stats.SilentPages != silent {
		t.Errorf("%d pages without an event, %d in the record", stats.SilentPages, silent)
	}
}

// TestTraceWays: a machine continues from one checkpoint several times, traced in a different way each
// time. It does the same work, so the records have the same pages, and also the same order if they know
// it.
func TestTraceWays(t *testing.T) {
	m := startReady(t, tracedSpec, 32<<20)
	from := checkpoint(t, m)
	var first *wss.Set
	for _, way := range []string{"", wayScans, wayFaults} {
		l, err := loadDir(from, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if !l.exact && way != wayFaults {
			continue
		}
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		set, stats := tracedToEnd(t, l.Machine, way)
		if !strings.HasPrefix(set.Way, way) {
			t.Errorf("%q was wanted, %q taken", way, set.Way)
		}
		vcpus, known := map[int]uint64{}, wss.NewBitmap(set.ImagePages)
		for _, r := range set.Runs {
			vcpus[r.VCPU] += r.Count
			if r.VCPU != wss.NoVCPU {
				known.SetRange(r.GFN, r.Count)
			}
		}
		t.Logf("pages by vCPU: %v, events %d", vcpus, stats.Events)
		switch way {
		case wayScans:
			if vcpus[wss.NoVCPU] != set.Pages() {
				t.Errorf("scans know vCPUs: %v", vcpus)
			}
		case wayFaults:
			if stats.SilentPages != 0 || stats.Events != set.Pages() {
				t.Errorf("%+v of %d pages", stats, set.Pages())
			}
		}
		if first == nil {
			first = set
		} else if !first.Bitmap().Equal(set.Bitmap()) {
			t.Errorf("%s: %+v", way, first.Overlap(set))
		}
	}
}

// TestTraceByScans: without events the order is that of the scans, and vCPUs are not known.
func TestTraceByScans(t *testing.T) {
	const pages = 4096
	dir := t.TempDir()
	path := filepath.Join(dir, state.MemoryFile)
	if err := os.WriteFile(path, make([]byte, pages*pageSize), 0o644); err != nil {
		t.Fatal(err)
	}
	img, err := state.OpenImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Map()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if ok, why := m.Exact(); !ok {
		t.Skipf("needs asynchronous userfaultfd write-protection (Linux 6.7): %s", why)
	}
	r := &recording{m: &Machine{mem: m}, way: wayScans, touches: wss.NewTouches(pages),
		begin: monotonic()}
	scanned := [][]int64{{900, 901, 17}, {}, {16, 18, 4000, 900}, {0}}
	for _, pages := range scanned {
		for _, gfn := range pages {
			if _, err := m.ReadAt(make([]byte, 1), gfn*pageSize); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.scan(); err != nil {
			t.Fatal(err)
		}
	}
	set, _ := r.touches.Set(wayScans, time.Minute, time.Now())
	var got []uint64
	for i, run := range set.Runs {
		if run.VCPU != wss.NoVCPU || i > 0 && run.At < set.Runs[i-1].At {
			t.Errorf("run %d: %+v", i, run)
		}
		for gfn := range run.Count {
			got = append(got, run.GFN+gfn)
		}
	}
	if want := []uint64{17, 900, 901, 16, 18, 4000, 0}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// TestTraceTwoVCPUs: each vCPU's touches are its own.
func TestTraceTwoVCPUs(t *testing.T) {
	if !slices.Contains(guest.Names(), "pair") {
		t.Skip("needs the guest program pair")
	}
	m := startReady(t, guest.Spec{Program: "pair"}, 16<<20)
	dir := filepath.Join(t.TempDir(), "cp")
	stats, err := m.checkpoint(t.Context(), dir, checkpointOptions{Trace: 300 * time.Millisecond,
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
	if err := m.Wait(t.Context()); err != errStopped {
		t.Errorf("the machine ended with %v", err)
	}
}

// TestTraceRefused: a machine that cannot be traced gives an error and leaves no files.
func TestTraceRefused(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "idle"}, 16<<20)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "cp")
	_, err := m.checkpoint(t.Context(), dir, checkpointOptions{Trace: time.Second})
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
	f, err := os.Open(filepath.Join(dir, state.SetFile))
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

// TestTraceByFaultsGoesOn: after a trace the guest continues with its memory, which it checks itself,
// and its changes are in the next checkpoint, also in a differential one.
func TestTraceByFaultsGoesOn(t *testing.T) {
	m := startReady(t, spec("random:20", "units", "300000"), testMemory)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	stats, err := m.checkpoint(t.Context(), first, checkpointOptions{Trace: time.Second / 4,
		way: wayFaults})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Trace == nil {
		t.Skip(stats.Note)
	}
	traced := readSet(t, first).Bitmap()
	touched, _, err := m.mem.Scan()
	if err != nil {
		t.Fatal(err)
	}
	if missed := traced.AndNot(touched).Count(); missed > 0 || traced.Count() == 0 {
		t.Errorf("%d of %d traced pages are not known to be touched", missed, traced.Count())
	}
	stats, err = m.checkpoint(t.Context(), second, checkpointOptions{Diff: true,
		Trace: time.Second / 4, way: wayFaults, pieces: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Trace == nil || stats.Trace.Pages == 0 {
		t.Errorf("%+v", stats)
	}
	runUntil(t, m, m.ports.snapshot().Done+2000)
	third := filepath.Join(dir, "third")
	stats, err = m.checkpoint(t.Context(), third, checkpointOptions{Diff: true, pieces: 1,
		Trace: time.Second / 4, way: wayFaults, Stop: true})
	if err != nil || stats.Trace != nil || !strings.Contains(stats.Note, "too many pieces") {
		t.Errorf("%+v, %v", stats, err)
	}
	for _, dir := range []string{second, third} {
		l, err := loadDir(dir, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		runUntil(t, l.Machine, l.ports.snapshot().Done+4000)
	}
}

// TestTraceByFaultsLost: if the checkpoint is truncated while its pages are served, the guest and the
// trace end with that error.
func TestTraceByFaultsLost(t *testing.T) {
	m := startReady(t, spec("random:20", "units", "200000000"), testMemory)
	dir := filepath.Join(t.TempDir(), "cp")
	traced := make(chan error, 1)
	go func() {
		_, err := m.checkpoint(t.Context(), dir, checkpointOptions{Trace: time.Minute,
			way: wayFaults})
		traced <- err
	}()
	begun := func() bool {
		m.control.Lock()
		defer m.control.Unlock()
		return m.tracing
	}
	for !begun() {
		select {
		case err := <-traced:
			t.Skip(err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := os.Truncate(filepath.Join(dir, state.MemoryFile), 0); err != nil {
		t.Fatal(err)
	}
	var lost *ram.LostError
	if err := m.Wait(t.Context()); !errors.As(err, &lost) || !lost.Known {
		t.Errorf("the machine ended with %v", err)
	}
	if err := <-traced; !errors.As(err, &lost) {
		t.Errorf("the trace ended with %v", err)
	}
}
