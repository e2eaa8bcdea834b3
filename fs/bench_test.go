package fs

import (
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What thaw costs beside go-fuse alone: each benchmark serves the same bytes from RAM by this file
// system and by the least that go-fuse can be made of, with the same mount options, in turns, to the
// same client process, and reports both and their ratio.

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

// Sequential read(2) of the whole file, cold, with a buffer of bs bytes.
func BenchmarkSequentialRead(b *testing.B) {
	for _, bs := range []int{4 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bs=%dK", bs>>10), func(b *testing.B) {
			p := benchPair(b)
			var took [2]time.Duration
			rounds := 0
			for b.Loop() {
				p.cold()
				for i := range 2 {
					which := (i + rounds) % 2
					fd := p.client.open(p.dirs[which]+"/memory", unix.O_RDONLY)
					took[which] += p.client.do(request{Op: "readall", FD: fd, Len: bs}).Took
					p.client.close(fd)
				}
				rounds++
			}
			mb := float64(rounds) * benchPages * PageSize / 1e6
			b.ReportMetric(mb/took[0].Seconds(), "thaw-MB/s")
			b.ReportMetric(mb/took[1].Seconds(), "bare-MB/s")
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// The prefetch of a working set of 100 MiB out of RAM, in an open, on a cold page cache: contiguous,
// and scattered in single pages and in runs of 16.
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
			var took time.Duration
			rounds := 0
			for b.Loop() {
				if err := bed.Drop(b.Context(), "a"); err != nil {
					b.Fatal(err)
				}
				res := c.do(request{Op: "open", Path: bed.path("a/memory")})
				took += res.Took
				c.close(int(res.N))
				rounds++
			}
			if st := bed.stats("a", ""); st.PrefetchedPages != pages {
				b.Fatalf("%+v", st.Counters)
			}
			b.ReportMetric(float64(rounds)*pages*PageSize/1e6/took.Seconds(), "MB/s")
			b.ReportMetric(took.Seconds()*1e3/float64(rounds), "ms")
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
	var took time.Duration
	rounds := 0
	for b.Loop() {
		res := c.do(request{Op: "open", Path: bed.path("a/memory")})
		took += res.Took
		c.close(int(res.N))
		rounds++
	}
	if st := bed.stats("a", ""); st.Prefetches != 1 {
		b.Fatalf("%+v", st.Counters)
	}
	b.ReportMetric(took.Seconds()*1e6/float64(rounds), "us")
	b.ReportMetric(0, "ns/op")
}
