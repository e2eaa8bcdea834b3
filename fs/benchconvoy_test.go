package fs

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A prefetch of 100 MiB while two threads of another client read just ahead of it, in order, each
// READ taking 20 ms. A server that waited for their pages in turn would take seconds.
func BenchmarkPrefetchBesideSlowReads(b *testing.B) {
	const pages = 25600
	x := spec{Name: "a", Pages: pages, InRAM: true, WS: [][2]uint64{{0, pages}}}
	store := newFakeStore(x)
	var slow atomic.Bool
	store.onRead = func(uint64) error {
		if slow.Load() {
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	}
	bed := mounted(b, store, Options{Policy: PolicyLazy, Log: slog.New(slog.DiscardHandler)})
	opener, reader := bed.client(), bed.client()
	fd := reader.open(bed.path("a/memory"), unix.O_RDONLY)
	m := reader.mapFile(fd, pages)
	var took fastest
	reads := uint64(0)
	for b.Loop() {
		if err := bed.Drop(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
		slow.Store(true)
		var waits []func() response
		for _, first := range []uint64{256, 257} {
			var gfns []uint64
			for gfn := first; gfn < pages; gfn += 2 {
				gfns = append(gfns, gfn)
			}
			waits = append(waits, reader.start(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x}))
		}
		eventually(b, "both read", func() bool { return bed.demand.outstanding.Load() == 2 })
		bed.SetPolicy(PolicyWorkingSet)
		res := opener.do(request{Op: "open", Path: bed.path("a/memory")})
		bed.SetPolicy(PolicyLazy)
		took.add(res.Took)
		slow.Store(false)
		for _, wait := range waits {
			if res := wait(); res.Err != "" {
				b.Fatal(res.Err)
			}
		}
		opener.close(int(res.N))
		reads += bed.stats("a", "").LazyRequests
	}
	b.ReportMetric(took.seconds()*1e3, "ms")
	b.ReportMetric(float64(reads)/float64(b.N), "READs")
	b.ReportMetric(0, "ns/op")
}
