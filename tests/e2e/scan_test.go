package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/race"
	"github.com/thawfs/thaw/tests/qemu"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/scan"
)

// scanned is a machine that was saved just after its working set had been estimated.
type scanned struct {
	savedLinux
	set   *wss.Set
	pid   *wss.Set // that of a scan by nothing but the process, just before it
	ticks int      // of the workload, in the time that the set is about
	stats scan.Stats
}

// scanLinux boots a guest, scans it from outside while it runs, as a user of QEMU would, and saves
// it. The directory `first` has the set as its working set.
func scanLinux(t *testing.T) *scanned {
	t.Helper()
	race.SkipSlow(t)
	if _, err := qemu.Find(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	sockets, err := os.MkdirTemp("", "thaw-scan") // the path of a socket is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	s := &scanned{savedLinux: savedLinux{first: filepath.Join(dir, "linux"),
		config: qemu.Config{Dir: dir, PayloadBytes: 24 << 20, NoHugePages: true}}}
	boot := s.config
	boot.Socket = filepath.Join(sockets, "qmp")
	g, err := qemu.Boot(ctx, boot)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	first, err := g.Console.WaitTicks(ctx, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	// Long enough for some rounds of the workload, however slow this host is at the moment.
	within := max(4*time.Second, 2*first[2].At.Sub(first[1].At))
	out := filepath.Join(dir, "scanned")
	byPID := filepath.Join(dir, "scanned-by-pid")
	p := cli.JSON[struct{ Scan scan.Stats }](t, "ws", "scan", "--pid", strconv.Itoa(g.PID()),
		"--out", byPID, "--within", within.String(), "--budget", "5")
	t.Logf("by process: %d sweeps took %.2f %%, the longest %.1f ms", p.Scan.Sweeps, 100*p.Scan.Share,
		1000*p.Scan.LongestPause)
	r := cli.JSON[struct{ Scan scan.Stats }](t, "ws", "scan", "--qemu", boot.Socket,
		"--memory", g.Memory(), "--out", out, "--within", within.String(), "--budget", "5")
	s.stats = r.Scan
	if err := g.Save(ctx, s.first); err != nil {
		t.Fatal(err)
	}
	s.set, s.pid = readSet(t, out), readSet(t, byPID)
	s.savedLinux.ticks = g.Console.Ticks()
	for _, tick := range s.savedLinux.ticks {
		if tick.At.After(s.set.Created.Add(-s.set.Window)) {
			s.ticks++
		}
	}
	if err := os.Rename(out, filepath.Join(s.first, "working-set")); err != nil {
		t.Fatal(err)
	}
	return s
}

// readSet reads a working-set file that is not on a mount.
func readSet(t *testing.T, path string) *wss.Set {
	t.Helper()
	f, err := os.Open(path)
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

// until is what a recorded set had read by then.
func until(set *wss.Set, at time.Duration) *wss.Set {
	early := &wss.Set{ImagePages: set.ImagePages}
	for _, r := range set.Runs {
		if r.At <= at {
			early.Runs = append(early.Runs, r)
		}
	}
	return early
}

// TestLinuxScanned estimates the working set of a real Linux while it runs, from outside, and holds
// it against what a lazy restore then reads for as much work as the scan saw. A restore by the set
// must spare the machine most of that.
func TestLinuxScanned(t *testing.T) {
	cli.NeedFUSE(t)
	s := scanLinux(t)
	t.Logf("scanned %d pages of %d in %d ticks: %s", s.set.Pages(), s.set.ImagePages, s.ticks, s.set.Way)
	t.Logf("by process %d pages: %s", s.pid.Pages(), s.pid.Way)
	same := s.set.Overlap(s.pid)
	t.Logf("the scan by process has %.3f of what the scan by QMP has, which has %.3f of it", same.OfA(),
		same.OfB())
	if same.OfA() < 0.6 || same.OfB() < 0.6 {
		t.Errorf("two scans of one machine, one after the other, differ: %.3f and %.3f", same.OfA(), same.OfB())
	}
	if got := s.set.Sources(); len(got) != 1 || got[0] != wss.SourceAccess {
		t.Errorf("sources %v", got)
	}
	if s.set.Pages()*2 > s.set.ImagePages {
		t.Errorf("the set has %d of %d pages, more than half", s.set.Pages(), s.set.ImagePages)
	}
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, s.first, "--name", "scanned")
	cli.OK(t, "import", store, s.first, "--name", "lazy", "--ignore-working-set")

	ticks := max(s.ticks, 2)
	lazy, read := s.restoreLazily(t, store, ticks)
	both := read.Overlap(s.set)
	early := until(read, s.set.Window).Overlap(s.set)
	t.Logf("a lazy restore read %d pages in %d ticks: recall %.3f, precision %.3f; "+
		"%d pages in %v: recall %.3f, precision %.3f", both.A, ticks, both.OfA(), both.OfB(),
		early.A, s.set.Window, early.OfA(), early.OfB())
	byPID, earlyPID := read.Overlap(s.pid), until(read, s.pid.Window).Overlap(s.pid)
	t.Logf("the scan by process: recall %.3f, precision %.3f; in %v: recall %.3f, precision %.3f", byPID.OfA(),
		byPID.OfB(), s.pid.Window, earlyPID.OfA(), earlyPID.OfB())
	if byPID.OfA() < 0.7 {
		t.Errorf("the scan by process has %.3f of what a lazy restore reads, want 0.7 or more", byPID.OfA())
	}
	if both.OfA() < 0.7 {
		t.Errorf("the scan has %.3f of what a lazy restore reads, want 0.7 or more", both.OfA())
	}

	m := cli.Mount(t, store, "--restore=working-set-full")
	g := restoreLinux(t, &s.savedLinux, m, "scanned", "b")
	g.goesOn(t, s.savedLinux.ticks, ticks)
	st := m.Stats(t, "scanned")
	t.Logf("by the scanned set: ready after %v; %v", g.opened.Round(time.Millisecond), st)
	if st.PrefetchedPages != s.set.Pages() || st.Errors != 0 {
		t.Errorf("want %d pages prefetched: %v", s.set.Pages(), st)
	}
	if st.Demanded()*2 > lazy.LazyPages {
		t.Errorf("%d demand pages by the scanned set, %d without: want half or less",
			st.Demanded(), lazy.LazyPages)
	}
	g.allRight(t)
}

// restoreLazily restores the machine without a set and records what it reads.
func (s *scanned) restoreLazily(t *testing.T, store string, ticks int) (cli.Stats, *wss.Set) {
	t.Helper()
	m := cli.Mount(t, store, "--restore=lazy", "--record-window=60s")
	cli.OK(t, "ws", "record", "--reset", m.Path("lazy"))
	g := restoreLinux(t, &s.savedLinux, m, "lazy", "a")
	g.goesOn(t, s.savedLinux.ticks, ticks)
	lazy := m.Stats(t, "lazy")
	cli.OK(t, "ws", "record", m.Path("lazy"))
	t.Logf("lazily: ready after %v; %v", g.opened.Round(time.Millisecond), lazy)
	if err := g.Close(); err != nil {
		t.Errorf("QEMU: %v", err)
	}
	read := readSet(t, writeShow(t, m.Path("lazy")))
	m.Unmount()
	return lazy, read
}

// TestScanMemfd scans a machine whose RAM is a memfd and has a hole below 4 GiB, by its process and by QMP.
// Both must find the same pages of the file, or the first would have taken the hole to be elsewhere.
func TestScanMemfd(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest of its own: not with -short")
	}
	race.SkipSlow(t)
	if _, err := qemu.Find(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	sockets, err := os.MkdirTemp("", "thaw-scan")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	dir := t.TempDir()
	g, err := qemu.Boot(ctx, qemu.Config{Dir: dir, MemoryBytes: 4 << 30, PayloadBytes: 8 << 20, Memfd: true,
		Socket: filepath.Join(sockets, "qmp")})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	first, err := g.Console.WaitTicks(ctx, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	within := max(4*time.Second, 2*first[2].At.Sub(first[1].At)).String()
	byPID, byQMP := filepath.Join(dir, "pid"), filepath.Join(dir, "qmp")
	cli.OK(t, "ws", "scan", "--pid", strconv.Itoa(g.PID()), "--out", byPID, "--within", within, "--budget", "5")
	cli.OK(t, "ws", "scan", "--qemu", filepath.Join(sockets, "qmp"), "--memory", g.Memory(), "--out", byQMP,
		"--within", within, "--budget", "5")
	a, b := readSet(t, byPID), readSet(t, byQMP)
	same := a.Overlap(b)
	high := 0
	for gfn := range b.GFNs() {
		if gfn >= 3<<30/4096 {
			high++
		}
	}
	t.Logf("by process: %s", a.Way)
	t.Logf("%d pages by process, %d by QMP, %d of them above 4 GiB; the same are %.3f and %.3f", same.A, same.B,
		high, same.OfA(), same.OfB())
	if a.ImagePages != 4<<30/4096 || high == 0 {
		t.Errorf("an image of %d pages, %d touched above 4 GiB", a.ImagePages, high)
	}
	if same.OfA() < 0.6 || same.OfB() < 0.6 {
		t.Errorf("the two differ: %.3f and %.3f are the same", same.OfA(), same.OfB())
	}
	// The machine goes on after all that.
	if _, err := g.Console.WaitTicks(ctx, g.Console.Lines(), 2); err != nil {
		t.Error(err)
	}
}
