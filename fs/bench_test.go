package fs

import (
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What thaw costs beside go-fuse alone: each benchmark serves the same bytes from RAM by this file
// system and by the least that go-fuse can be made of, with the same mount options, in turns, to
// the same client process, and reports both and their ratio.

// bare is one file in RAM, "memory", and nothing else.
type bare struct {
	fuse.RawFileSystem
	ram []byte
	srv *fuse.Server
}

func (b *bare) Init(s *fuse.Server) { b.srv = s }

func (b *bare) attr(id uint64, a *fuse.Attr) {
	*a = fuse.Attr{Ino: id, Mode: syscall.S_IFDIR | 0o755, Nlink: 1, Blksize: 128 << 10}
	if id != 1 {
		a.Mode, a.Size = syscall.S_IFREG|0o644, uint64(len(b.ram))
	}
}

func (b *bare) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != fileMemory {
		return fuse.ENOENT
	}
	out.NodeId = 2
	out.SetEntryTimeout(time.Hour)
	out.SetAttrTimeout(time.Hour)
	b.attr(2, &out.Attr)
	return fuse.OK
}

func (b *bare) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	b.attr(in.NodeId, &out.Attr)
	out.SetTimeout(time.Hour)
	return fuse.OK
}

func (b *bare) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (b *bare) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	off := min(in.Offset, uint64(len(b.ram)))
	end := min(off+uint64(len(buf)), uint64(len(b.ram)))
	return fuse.ReadResultData(b.ram[off:end]), fuse.OK
}

// mountBare mounts it as Mount would.
func mountBare(tb testing.TB, ram []byte) (b *bare, dir string) {
	tb.Helper()
	dir = mountDir(tb)
	b = &bare{RawFileSystem: fuse.NewDefaultRawFileSystem(), ram: ram}
	srv, err := fuse.NewServer(b, dir, &fuse.MountOptions{
		DirectMountStrict: true, MaxReadAhead: PageSize, MaxBackground: 64,
		ExplicitDataCacheControl: true, DisableXAttrs: true, DisableSplice: true,
		FsName: "thaw", Name: "thaw",
		Logger: log.New(testWriter{tb}, "", 0),
	})
	if err != nil {
		tb.Skip("needs root: ", err)
	}
	go srv.Serve()
	tb.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			tb.Error(err)
			Abort(dir)
		}
		srv.Wait()
	})
	return b, dir
}

// A pair is the two mounts of a benchmark and their client.
type pair struct {
	b      *testing.B
	thaw   *bed
	bare   *bare
	client *proc
	dirs   [2]string // of the files: thaw's, the bare one's
}

const benchPages = 64 << 10 // 256 MiB

func benchPair(b *testing.B) *pair {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root: both are mounted by mount(2)")
	}
	x := spec{Name: "a", Pages: benchPages, InRAM: true, WS: [][2]uint64{{0, 1}}}
	store := newFakeStore(x)
	p := &pair{b: b, thaw: mounted(b, store, Options{Policy: PolicyLazy, Log: slog.New(slog.DiscardHandler)})}
	p.dirs[0] = p.thaw.path("a")
	p.client = p.thaw.client()
	fd := p.client.open(p.thaw.path("a/memory"), unix.O_RDONLY) // opens the image
	p.client.close(fd)
	p.bare, p.dirs[1] = mountBare(b, store.images["a"][0].ram)
	p.client.close(p.client.open(p.dirs[1]+"/memory", unix.O_RDONLY))
	return p
}

// cold drops the page caches of both.
func (p *pair) cold() {
	p.b.Helper()
	if err := p.thaw.Drop(p.b.Context(), "a"); err != nil {
		p.b.Fatal(err)
	}
	if st := p.bare.srv.InodeNotify(2, 0, 0); !st.Ok() {
		p.b.Fatal(st)
	}
}

// A lazy fault: p50 and p99 of first touches of 4 KiB pages in random order.
func BenchmarkLazyFault(b *testing.B) {
	p := benchPair(b)
	var ns [2][]int64
	rounds := 0
	for b.Loop() {
		p.cold()
		order := rand.New(rand.NewPCG(uint64(rounds), 7)).Perm(benchPages)[:8192]
		gfns := make([]uint64, len(order))
		for i, x := range order {
			gfns[i] = uint64(x)
		}
		for i := range 2 {
			which := (i + rounds) % 2 // who comes first changes
			fd := p.client.open(p.dirs[which]+"/memory", unix.O_RDONLY)
			res := p.client.do(request{Op: "faults", FD: fd, Len: benchPages * PageSize, GFNs: gfns})
			ns[which] = append(ns[which], res.NS...)
			p.client.close(fd)
		}
		rounds++
	}
	for _, q := range []int{50, 99} {
		var at [2]float64
		for i := range ns {
			slices.Sort(ns[i])
			at[i] = float64(ns[i][len(ns[i])*q/100]) / 1e3
		}
		b.ReportMetric(at[0], fmt.Sprintf("thaw-p%d-us", q))
		b.ReportMetric(at[1], fmt.Sprintf("bare-p%d-us", q))
		b.ReportMetric(at[0]/at[1], fmt.Sprintf("ratio-p%d", q))
	}
	b.ReportMetric(0, "ns/op")
}

// fastest is the shortest of some times: on a machine that is used by others too, the one that was
// disturbed least.
type fastest struct{ d time.Duration }

func (f *fastest) add(d time.Duration) {
	if f.d == 0 || d < f.d {
		f.d = d
	}
}

func (f *fastest) seconds() float64 { return f.d.Seconds() }

// Sequential read(2) of the whole file, cold, with a buffer of bs bytes.
func BenchmarkSequentialRead(b *testing.B) {
	for _, bs := range []int{4 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bs=%dK", bs>>10), func(b *testing.B) {
			p := benchPair(b)
			var took [2]fastest
			rounds := 0
			for b.Loop() {
				p.cold()
				for i := range 2 {
					which := (i + rounds) % 2
					fd := p.client.open(p.dirs[which]+"/memory", unix.O_RDONLY)
					took[which].add(p.client.do(request{Op: "readall", FD: fd, Len: bs}).Took)
					p.client.close(fd)
				}
				rounds++
			}
			const mb = benchPages * PageSize / 1e6
			b.ReportMetric(mb/took[0].seconds(), "thaw-MB/s")
			b.ReportMetric(mb/took[1].seconds(), "bare-MB/s")
			b.ReportMetric(took[1].seconds()/took[0].seconds(), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// The prefetch of a working set of 100 MiB out of RAM, in an open, on a cold page cache:
// contiguous, and scattered in single pages and in runs of 16.
func BenchmarkPrefetch(b *testing.B) {
	const pages = 25600
	scatter := func(run, gap uint64) (ws [][2]uint64) {
		for gfn := uint64(0); uint64(len(ws))*run < pages; gfn += run + gap {
			ws = append(ws, [2]uint64{gfn, run})
		}
		return ws
	}
	for name, ws := range map[string][][2]uint64{
		"contiguous": {{0, pages}}, "runs-of-16": scatter(16, 16), "pages": scatter(1, 1),
	} {
		b.Run(name, func(b *testing.B) {
			x := spec{Name: "a", Pages: benchPages, InRAM: true, WS: ws}
			bed := mounted(b, newFakeStore(x), Options{Workers: 2, Log: slog.New(slog.DiscardHandler)})
			c := bed.client()
			c.close(c.open(bed.path("a/memory"), unix.O_RDONLY))
			var took fastest
			for b.Loop() {
				if err := bed.Drop(b.Context(), "a"); err != nil {
					b.Fatal(err)
				}
				res := c.do(request{Op: "open", Path: bed.path("a/memory")})
				took.add(res.Took)
				c.close(int(res.N))
			}
			if st := bed.stats("a", ""); st.PrefetchedPages != pages {
				b.Fatalf("%+v", st.Counters)
			}
			b.ReportMetric(pages*PageSize/1e6/took.seconds(), "MB/s")
			b.ReportMetric(took.seconds()*1e3, "ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// A second open of a resident image of 100 MiB.
func BenchmarkSecondOpen(b *testing.B) {
	prober := startProber(b)
	x := spec{Name: "a", Pages: benchPages, InRAM: true, WS: [][2]uint64{{0, 25600}}}
	bed := mounted(b, newFakeStore(x), Options{Prober: prober, Log: slog.New(slog.DiscardHandler)})
	c := bed.client()
	c.close(c.open(bed.path("a/memory"), unix.O_RDONLY))
	var took fastest
	for b.Loop() {
		res := c.do(request{Op: "open", Path: bed.path("a/memory")})
		took.add(res.Took)
		c.close(int(res.N))
	}
	if st := bed.stats("a", ""); st.Prefetches != 1 {
		b.Fatalf("%+v", st.Counters)
	}
	b.ReportMetric(took.seconds()*1e6, "us")
	b.ReportMetric(0, "ns/op")
}

// The first touch of a page that was prefetched, beside those of two local files in the page cache.
// Pushed pages are folios of one page each. So are those of a file that was written in pieces of 4
// KiB; one that was written at once may have large folios (ext4 since 6.16, xfs), which the kernel
// maps more cheaply, and which a FUSE server has no way to make.
func BenchmarkPrefetchedTouch(b *testing.B) {
	const pages = 25600
	x := spec{Name: "a", Pages: pages, InRAM: true, WS: [][2]uint64{{0, pages}}}
	bed := mounted(b, newFakeStore(x), Options{Log: slog.New(slog.DiscardHandler)})
	c := bed.client()
	image := compressible(pages)
	fds := []int{
		c.open(bed.path("a/memory"), unix.O_RDONLY),
		c.open(localFile(b, image, PageSize), unix.O_RDONLY),
		c.open(localFile(b, image, len(image)), unix.O_RDONLY),
	}
	var gfns []uint64
	for _, gfn := range rand.New(rand.NewPCG(5, 6)).Perm(pages) {
		gfns = append(gfns, uint64(gfn))
	}
	best := make([]fastest, len(fds))
	for b.Loop() {
		for i, fd := range fds {
			res := c.do(request{Op: "faults", FD: fd, Len: pages * PageSize, GFNs: gfns})
			var sum int64
			for _, ns := range res.NS {
				sum += ns
			}
			best[i].add(time.Duration(sum / pages))
		}
	}
	if st := bed.stats("a", ""); st.LazyRequests != 0 {
		b.Fatalf("%+v", st.Counters)
	}
	for i, name := range []string{"thaw", "local-4K", "local-large"} {
		b.ReportMetric(best[i].seconds()*1e9, name+"-ns/page")
		if i > 0 {
			b.ReportMetric(best[0].seconds()/best[i].seconds(), "ratio-to-"+name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// localFile writes a file in pieces.
func localFile(b *testing.B, image []byte, piece int) string {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "memory"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for off := 0; off < len(image); off += piece {
		if _, err := f.Write(image[off : off+piece]); err != nil {
			b.Fatal(err)
		}
	}
	return f.Name()
}

// compressible is pages of which a third is random.
func compressible(pages int) []byte {
	rnd := rand.NewChaCha8([32]byte{1})
	image := make([]byte, pages*PageSize)
	for i := 0; i < len(image); i += PageSize {
		rnd.Read(image[i : i+PageSize/3])
	}
	return image
}
