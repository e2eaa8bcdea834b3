package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
)

// benchStore mounts a real store with one image, "a", and starts a client. The image is
// THAW_BENCH_IMAGE, a memory file; without it, pages that compress about 3:1.
func benchStore(b *testing.B, set []index.Run) (*bed, *proc, int64) {
	b.Helper()
	at := filepath.Join(b.TempDir(), "store")
	store, err := index.Open(b.Context(), at, index.OpenOptions{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	memory := os.Getenv("THAW_BENCH_IMAGE")
	if memory == "" {
		b.Log("THAW_BENCH_IMAGE is not set: synthetic pages")
		memory = filepath.Join(b.TempDir(), "memory")
		if err := os.WriteFile(memory, compressible(benchPages), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	src, err := index.OpenSource(memory)
	if err != nil {
		b.Fatal(err)
	}
	c, _, err := store.Import(b.Context(), src, index.ImportOptions{Name: "a", WorkingSet: set})
	if err != nil {
		b.Fatal(err)
	}
	dir := mountDir(b)
	srv, err := Mount(b.Context(), NewStore(store), dir, Options{RecordWindow: time.Nanosecond})
	if err != nil {
		b.Fatal(err)
	}
	bed := &bed{Server: srv, t: b, dir: dir}
	b.Cleanup(func() {
		if err := srv.Unmount(context.Background()); err != nil {
			b.Error(err)
			bed.abort()
		}
		srv.Wait()
	})
	return bed, bed.client(), c.MemoryBytes
}

// Sequential read(2) of a real store's image, cold in the mount's page cache: what decoding adds.
func BenchmarkSequentialReadStore(b *testing.B) {
	for _, bs := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bs=%dK", bs>>10), func(b *testing.B) {
			bed, c, size := benchStore(b, nil)
			bed.SetPolicy(PolicyLazy)
			var took fastest
			for b.Loop() {
				if err := bed.Drop(b.Context(), "a"); err != nil {
					b.Fatal(err)
				}
				fd := c.open(bed.path("a/memory"), unix.O_RDONLY)
				took.add(c.do(request{Op: "readall", FD: fd, Len: bs}).Took)
				c.close(fd)
			}
			b.ReportMetric(float64(size)/1e6/took.seconds(), "MB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// The prefetch of 100 MiB of a real store's image in runs of 16 pages, in an open, the store's
// packs in the host's page cache.
func BenchmarkPrefetchStore(b *testing.B) {
	var set []index.Run
	for gfn := uint64(0); gfn < 51200; gfn += 32 {
		set = append(set, index.Run{GFN: gfn, Count: 16})
	}
	bed, c, _ := benchStore(b, set)
	var took fastest
	for b.Loop() {
		if err := bed.Drop(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
		res := c.do(request{Op: "open", Path: bed.path("a/memory")})
		took.add(res.Took)
		c.close(int(res.N))
	}
	st := bed.stats("a", "")
	b.ReportMetric(float64(st.PrefetchedBytes)/1e6/took.seconds(), "MB/s")
	b.ReportMetric(took.seconds()*1e3, "ms")
	b.ReportMetric(float64(st.PrefetchedPages), "pages")
	b.ReportMetric(0, "ns/op")
}
