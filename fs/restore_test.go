package fs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wsSpec has a working set in runs, scattered, with zero pages in it.
func wsSpec() spec {
	x := spec{Name: "a", Pages: 4096, ZeroEvery: 11, Seed: 9}
	for first := uint64(0); first < x.Pages; first += 64 {
		x.WS = append(x.WS, [2]uint64{(first*37 + 5) % x.Pages / 64 * 64, 16})
	}
	return x
}

// mayEvict is how many prefetched pages may be asked for once more: those that the kernel has evicted,
// as some hosts do at any time. If it is more than a few, the prefetch did not work.
func mayEvict(st Stats) uint64 { return min(st.EvictedPages, (st.PrefetchedPages+st.TailPages)/20) }

// The open brings all of the working set: touching it then asks the server for nothing.
func TestPolicyWorkingSetFull(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	ws := (&fakeImage{spec: x}).workingSet()
	st := b.stats("a", "")
	if st.PrefetchedPages != uint64(len(ws)) || st.Prefetches != 1 || st.PrefetchSeconds <= 0 {
		t.Errorf("%+v, want %d prefetched", st.Counters, len(ws))
	}
	if len(st.PrefetchIntervals) != 1 {
		t.Errorf("%v", st.PrefetchIntervals)
	}
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: ws, Spec: &x})
	if st := b.stats("a", ""); st.LazyRequests > mayEvict(st) {
		t.Errorf("%d READs of prefetched pages, %d evicted", st.LazyRequests, st.EvictedPages)
	}
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{40, 4095}, Spec: &x})
	if st := b.stats("a", ""); st.LazyPages < 2 || st.LazyPages > 2+mayEvict(st) {
		t.Errorf("%d lazy pages, want 2, %d evicted", st.LazyPages, st.EvictedPages)
	}
}

func TestPolicyEager(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyEager})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: upTo(x.Pages), Spec: &x})
	if st := b.stats("a", ""); st.PrefetchedPages != x.Pages || st.LazyRequests > mayEvict(st) {
		t.Errorf("%+v", st.Counters)
	}
}

// No working set, no prefetch.
func TestPolicyWithoutWorkingSet(t *testing.T) {
	b := mounted(t, newFakeStore(spec{Name: "a", Pages: 100}), Options{})
	c := b.client()
	c.open(b.path("a/memory"), unix.O_RDONLY)
	if st := b.stats("a", ""); st.Prefetches != 0 || st.Opens != 1 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
}

// Any number of opens at once, of one restore.
func TestOpensAtOnce(t *testing.T) {
	x := wsSpec()
	store := newFakeStore(x)
	release := make(chan struct{})
	var pieces atomic.Int64
	store.onFeed = func(int) error {
		pieces.Add(1)
		<-release
		return nil
	}
	b := mounted(t, store, Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	var waits []func() response
	for range 10 {
		waits = append(waits, c.start(request{Op: "open", Path: b.path("a/memory")}))
	}
	eventually(t, "all opens have come in", func() bool { return b.stats("a", "").Opens == 10 })
	close(release)
	for _, wait := range waits {
		if res := wait(); res.Err != "" {
			t.Error(res.Err)
		}
	}
	st := b.stats("a", "")
	if st.Prefetches != 1 || st.PrefetchedPages != 1024 || pieces.Load() != 4 {
		t.Errorf("%+v in %d pieces", st.Counters, pieces.Load())
	}
}

// A cap on bytes lets the guest start; the rest follows.
func TestCapBytes(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{CapBytes: fakePiece * PageSize, Workers: 1})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	eventually(t, "the tail is brought", func() bool {
		st := b.stats("a", "")
		return st.PrefetchedPages+st.TailPages == 1024
	})
	if st := b.stats("a", ""); st.PrefetchedPages != fakePiece || st.PushedPages != st.TailPages {
		t.Errorf("%+v", st.Counters)
	}
	ws := (&fakeImage{spec: x}).workingSet()
	c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: ws, Spec: &x})
	if st := b.stats("a", ""); st.LazyRequests > mayEvict(st) {
		t.Errorf("%+v", st.Counters)
	}
}

// A cap on time holds although the disk does not answer at all.
func TestCapTime(t *testing.T) {
	x := wsSpec()
	store := newFakeStore(x)
	release := make(chan struct{})
	store.onFeed = func(int) error { <-release; return nil }
	b := mounted(t, store, Options{CapTime: 20 * time.Millisecond})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY) // returns
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{1, 2, 3}, Spec: &x})
	close(release)
	eventually(t, "the tail is brought", func() bool { return b.stats("a", "").TailPages == 1024-3 })
}

// The last close ends a restore that nobody waits for.
func TestTailEndsWithLastClose(t *testing.T) {
	x := wsSpec()
	store := newFakeStore(x)
	second := make(chan struct{})
	store.onFeed = func(piece int) error {
		if piece > 0 {
			<-second
		}
		return nil
	}
	b := mounted(t, store, Options{CapBytes: 1, Workers: 1})
	c := b.client()
	c.close(c.open(b.path("a/memory"), unix.O_RDONLY))
	eventually(t, "it is released", func() bool { return b.InUse("a") == 0 })
	e := b.tree.entry("a")
	e.mu.Lock()
	f := e.main.flight
	e.mu.Unlock()
	if f != nil {
		t.Error("it can be joined")
	}
	close(second)
	if err := b.Release(t.Context(), "a"); err != nil { // waits until nobody uses the image
		t.Error(err)
	}
	if st := b.stats("a", ""); st.TailPages+st.PrefetchedPages >= 1024 {
		t.Errorf("%+v", st.Counters)
	}
}

// A prefetch that fails costs its speed only.
func TestPrefetchError(t *testing.T) {
	x := wsSpec()
	store := newFakeStore(x)
	store.onFeed = func(piece int) error {
		if piece == 2 {
			return errFake
		}
		return nil
	}
	b := mounted(t, store, Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: upTo(x.Pages), Spec: &x})
	if st := b.stats("a", ""); st.FailedPrefetches != 1 || st.Errors != 0 {
		t.Errorf("%+v", st.Counters)
	}
}

func startProber(t testing.TB) *ProcessProber {
	t.Helper()
	t.Setenv(roleEnv, "prober")
	p, err := StartProber(context.Background(), "/proc/self/exe")
	if errors.Is(err, ErrNoProber) {
		t.Skip("needs cachestat(2), Linux 6.5: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// A second open asks the prober, and finds everything there or brings it again.
func TestSecondOpen(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull, Prober: startProber(t)})
	c := b.client()
	for _, path := range []string{"a/memory", "a/clones/x/memory"} {
		c.close(c.open(b.path(path), unix.O_RDONLY))
		fd := c.open(b.path(path), unix.O_RDONLY)
		if got := c.do(request{Op: "cached", FD: fd}).N; got != 1024 {
			t.Errorf("%s: %d pages in the page cache", path, got)
		}
	}
	// Nothing was brought twice. How many prefetches there were is not certain: one that its client closes
	// before it has noted that it is complete is made again, and finds all pages there.
	before := b.stats("a", "")
	if before.PrefetchedPages != 2048 || before.Opens != 4 {
		t.Errorf("%+v", before.Counters)
	}
	// Eviction is seen.
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	c.do(request{Op: "evict", FD: fd})
	if got := c.do(request{Op: "cached", FD: fd}).N; got != 0 {
		t.Errorf("%d pages after eviction", got)
	}
	fd = c.open(b.path("a/memory"), unix.O_RDONLY)
	if got := c.do(request{Op: "cached", FD: fd}).N; got != 1024 {
		t.Errorf("%d pages after the open that follows", got)
	}
	if st := b.stats("a", ""); st.Prefetches != before.Prefetches+1 {
		t.Errorf("%+v", st.Counters)
	}
}

// Without a prober, or with a dead one, a second open pushes again.
func TestSecondOpenWithoutProber(t *testing.T) {
	dead := startProber(t)
	dead.child.cmd.Process.Kill()
	for name, prober := range map[string]Prober{"none": nil, "dead": dead} {
		t.Run(name, func(t *testing.T) {
			b := mounted(t, newFakeStore(wsSpec()), Options{Policy: PolicyWorkingSetFull, Prober: prober})
			c := b.client()
			c.close(c.open(b.path("a/memory"), unix.O_RDONLY))
			fd := c.open(b.path("a/memory"), unix.O_RDONLY)
			c.do(request{Op: "evict", FD: fd})
			fd = c.open(b.path("a/memory"), unix.O_RDONLY)
			if got := c.do(request{Op: "cached", FD: fd}).N; got != 1024 {
				t.Errorf("%d pages in the page cache", got)
			}
			if st := b.stats("a", ""); st.Prefetches != 3 {
				t.Errorf("%+v", st.Counters)
			}
		})
	}
}

// READs that are not answered hold up nobody: the prefetch goes round their pages, and is over
// while they still wait (no convoy, no deadlock). Rule 2 of the design.
func TestPrefetchGoesRoundReads(t *testing.T) {
	x := wsSpec()
	store := newFakeStore(x)
	release := make(chan struct{})
	var waiting atomic.Int64
	store.onRead = func(uint64) error {
		waiting.Add(1)
		<-release
		return nil
	}
	b := mounted(t, store, Options{Policy: PolicyLazy})
	c := b.client()
	ws := (&fakeImage{spec: x}).workingSet()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	var touches []func() response
	for i := range 8 {
		touches = append(touches, c.start(request{
			Op: "touch", Map: m, GFNs: []uint64{ws[i*100], ws[i*100+1]}, Spec: &x,
		}))
	}
	eventually(t, "8 READs wait", func() bool { return waiting.Load() == 8 })
	b.SetPolicy(PolicyWorkingSetFull)
	b.client().open(b.path("a/memory"), unix.O_RDONLY) // returns while they wait
	if st := b.stats("a", ""); st.PrefetchedPages != 1024-8 {
		t.Errorf("%d prefetched beside 8 READs", st.PrefetchedPages)
	}
	close(release)
	for _, wait := range touches {
		if res := wait(); res.Err != "" {
			t.Error(res.Err)
		}
	}
	if st := b.stats("a", ""); st.LazyRequests != 8 {
		t.Errorf("%d READs, want 8: their neighbours were prefetched", st.LazyRequests)
	}
}

// Slow READs by many threads all over the image, while it is restored and dropped again and again:
// everything comes to its end with the right bytes.
func TestSlowReadsAgainstPushes(t *testing.T) {
	x := wsSpec()
	x.LocalBlocks = true
	store := newFakeStore(x)
	store.onRead = func(uint64) error { time.Sleep(2 * time.Millisecond); return nil }
	b := mounted(t, store, Options{})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for at := uint64(i * 100); !stop.Load(); at += 500 {
				var gfns []uint64
				for j := range uint64(40) {
					gfns = append(gfns, (at+j*17)%x.Pages)
				}
				if res := c.try(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x}); res.Err != "" {
					t.Error(res.Err)
					return
				}
				res := c.try(request{Op: "pread", FD: fd, Off: int64(gfns[0]) * PageSize, Len: 64 << 10})
				if res.Err != "" || len(res.Data) == 0 || x.check(gfns[0], res.Data[:PageSize]) != nil {
					t.Error("pread:", res.Err)
					return
				}
			}
		})
	}
	for range 10 {
		if err := b.Drop(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		c.close(c.open(b.path("a/memory"), unix.O_RDONLY))
		c.close(c.open(b.path("a/clones/x/memory"), unix.O_RDWR))
	}
	stop.Store(true)
	wg.Wait()
}
