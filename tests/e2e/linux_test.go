package e2e

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/qemu"
)

// restored is a Linux guest that runs from a mount.
type restored struct {
	*qemu.Guest
	opened time.Duration // until QEMU stood ready to run: the open of memory and the device state
}

// restoreLinux restores QEMU from a checkpoint on a mount, as this QEMU can: from 8.2 on it maps
// `memory` read-only, before it needs a clone that opens O_RDWR.
func restoreLinux(t *testing.T, l *savedLinux, m *cli.Mounted, name, clone string) *restored {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tools, err := qemu.Find()
	if err != nil {
		t.Skip(err)
	}
	major, minor, err := tools.Version(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var o qemu.RestoreOptions
	memory := m.Path(name, "clones", clone, "memory")
	if major > 8 || major == 8 && minor >= 2 {
		o.ReadOnly, memory = true, m.Path(name, "memory")
	}
	start := time.Now()
	g, err := qemu.Restore(ctx, l.config, memory, m.Path(name, "state"), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, m.Log())
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("QEMU: %v", err)
		}
	})
	r := &restored{g, time.Since(start)}
	if err := g.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	return r
}

// goesOn waits for ticks and requires that the guest goes on where it was saved, its clock ticking
// and its data right.
func (r *restored) goesOn(t *testing.T, saved []qemu.Tick, ticks int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	got, err := r.Console.WaitTicks(ctx, 0, ticks)
	if err != nil {
		t.Fatal(err)
	}
	last := saved[len(saved)-1]
	// A line may have been on its way when the machine was stopped, hence 1 or 2.
	if first := got[0].Round; first < last.Round+1 || first > last.Round+2 {
		t.Errorf("the guest goes on with round %d; it was saved after round %d", first, last.Round)
	}
	for i, tick := range got {
		if i > 0 && (tick.Round != got[i-1].Round+1 || tick.Uptime <= got[i-1].Uptime) {
			t.Errorf("after round %d at %.2f s came round %d at %.2f s", got[i-1].Round,
				got[i-1].Uptime, tick.Round, tick.Uptime)
		}
		if tick.Bad != 0 {
			t.Fatalf("the guest found wrong data: %+v", tick)
		}
	}
}

// allRight lets the guest check every file that it has.
func (r *restored) allRight(t *testing.T) {
	t.Helper()
	r.checkAll(t)()
}

// checkAll begins that check; the function it gives waits for its end.
func (r *restored) checkAll(t *testing.T) (wait func()) {
	t.Helper()
	mark := r.Console.Lines()
	if err := r.Command("all"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		bad, files, err := r.Console.WaitAll(ctx, mark)
		if err != nil {
			t.Fatal(err)
		}
		if bad != 0 || files == 0 {
			t.Fatalf("the guest found %d wrong files of %d", bad, files)
		}
	}
}

// TestLinuxEveryPolicy restores a real Linux from a mount: lazily, which records its working set,
// then by that working set, then eagerly. Every time it must go on with all its data right; the
// working set must spare it nearly all demand reads, and eager all.
func TestLinuxEveryPolicy(t *testing.T) {
	cli.NeedFUSE(t)
	l := linux(t)
	ticks := fewer(6, 4)
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, l.first, "--name", "linux")

	var lazy, prefetched, eager cli.Stats
	t.Run("lazy", func(t *testing.T) {
		m := cli.Mount(t, store, "--restore=lazy", "--record-window=60s")
		cli.OK(t, "ws", "record", "--reset", m.Path("linux"))
		g := restoreLinux(t, l, m, "linux", "a")
		g.goesOn(t, l.ticks, ticks)
		lazy = m.Stats(t, "linux")
		cli.OK(t, "ws", "record", "--max-share=100", m.Path("linux"))
		g.allRight(t)
		t.Logf("ready after %v; %v", g.opened.Round(time.Millisecond), lazy)
		if lazy.PrefetchedPages != 0 || lazy.LazyPages == 0 || lazy.Errors != 0 {
			t.Errorf("counters of a lazy restore: %v", lazy)
		}
	})
	if t.Failed() {
		return
	}
	t.Run("working-set", func(t *testing.T) {
		m := cli.Mount(t, store)
		g := restoreLinux(t, l, m, "linux", "d")
		g.goesOn(t, l.ticks, ticks)
		st := m.Stats(t, "linux")
		t.Logf("ready after %v; %v", g.opened.Round(time.Millisecond), st)
		// On a host that others want, too, what is to come in time may be late.
		if st.PrefetchedPages == 0 || st.Errors != 0 || st.LazyRequests >= lazy.LazyRequests {
			t.Errorf("counters of a restore by working set: %v", st)
		}
		g.allRight(t)
	})
	t.Run("working-set-full", func(t *testing.T) {
		m := cli.Mount(t, store, "--restore=working-set-full")
		g := restoreLinux(t, l, m, "linux", "b")
		g.goesOn(t, l.ticks, ticks)
		prefetched = m.Stats(t, "linux")
		t.Logf("ready after %v; %v", g.opened.Round(time.Millisecond), prefetched)
		if prefetched.PrefetchedPages == 0 || prefetched.Errors != 0 {
			t.Errorf("counters of a restore by working set: %v", prefetched)
		}
		// Requests, and not pages: while reads are recorded, the kernel's reading ahead is refused.
		if prefetched.LazyRequests*5 > lazy.LazyRequests {
			t.Errorf("%d demand requests with a working set, %d without: want a fifth or less",
				prefetched.LazyRequests, lazy.LazyRequests)
		}
		g.allRight(t)
	})
	t.Run("eager", func(t *testing.T) {
		m := cli.Mount(t, store, "--restore=eager")
		g := restoreLinux(t, l, m, "linux", "c")
		g.goesOn(t, l.ticks, 2)
		g.allRight(t)
		eager = m.Stats(t, "linux")
		t.Logf("ready after %v; %v", g.opened.Round(time.Millisecond), eager)
		if want := uint64(512 << 20 / 4096); eager.PrefetchedPages != want {
			t.Errorf("eager prefetched %d pages, want %d", eager.PrefetchedPages, want)
		}
		if n := eager.Demanded(); n != 0 {
			t.Errorf("%d demand pages after an eager restore", n)
		}
	})
}

// TestLinuxTwoMachines runs two machines from one checkpoint at once; each must have memory of
// its own for what it writes.
func TestLinuxTwoMachines(t *testing.T) {
	cli.NeedFUSE(t)
	l := linux(t)
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, l.first, "--name", "linux")
	m := cli.Mount(t, store)
	a := restoreLinux(t, l, m, "linux", "a")
	a.goesOn(t, l.ticks, 2)
	b := restoreLinux(t, l, m, "linux", "b")
	b.goesOn(t, l.ticks, 2)
	checkA, checkB := a.checkAll(t), b.checkAll(t)
	checkA()
	checkB()
}

// TestLinuxExport: import and export preserve memory and state byte for byte, of both
// checkpoints, and the second one of the same machine costs little.
func TestLinuxExport(t *testing.T) {
	l := linux(t)
	store := filepath.Join(t.TempDir(), "store")
	type reply struct {
		Stats struct {
			NewPages    uint64 `json:"new_pages"`
			StoredBytes int64  `json:"stored_bytes"`
		}
	}
	one := cli.JSON[reply](t, "import", store, l.first, "--name", "one")
	two := cli.JSON[reply](t, "import", store, l.second, "--name", "two")
	for name, dir := range map[string]string{"one": l.first, "two": l.second} {
		out := filepath.Join(t.TempDir(), "out")
		cli.OK(t, "export", store, name, out)
		sameFile(t, filepath.Join(out, "memory"), filepath.Join(dir, "memory"))
		sameFile(t, filepath.Join(out, "state"), filepath.Join(dir, "state"))
	}
	t.Logf("stored: first %+v, second %+v", one.Stats, two.Stats)
	if two.Stats.StoredBytes*4 > one.Stats.StoredBytes {
		t.Errorf("the second checkpoint takes %d bytes, the first %d", two.Stats.StoredBytes,
			one.Stats.StoredBytes)
	}
	cli.OK(t, "check", store, "--read-data")
}
