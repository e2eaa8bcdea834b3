package fs

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/seal"
)

// What the server's own part of a lazy fault costs: go-fuse and the kernel are left out. Pages are read at
// random, with what follows a READ: streams are looked for, and jobs are handed to pushers, which throw
// them away.
//
//	image   Image.ReadPage alone: page map, pread, checksum, decoding
//	server  all of it, from go-fuse's call to Done
//	ram     the same of an image that lies in RAM: the book-keeping, and a copy
//
// The store's image is THAW_BENCH_IMAGE, a memory file; without it, pages that compress about 3:1.
func BenchmarkReadPath(b *testing.B) {
	key := seal.NewKey()
	for name, o := range map[string]struct {
		p    index.Profile
		keys index.KeySource
	}{
		"default": {index.ProfileDefault, nil}, "fast": {index.ProfileFast, nil},
		"sealed": {index.ProfileDefault, func(context.Context) (*seal.Key, error) { return &key, nil }},
	} {
		store, pages := benchIndexWith(b, o.p, o.keys)
		r := newReadRig(b, NewStore(store))
		img := r.tree.entry("a").img.Load().mem
		gfns := notZero(img, pages)
		b.Run(name+"/image", func(b *testing.B) {
			buf := make([]byte, PageSize)
			leastCPU(b, gfns, func(gfn uint64) {
				if err := img.ReadPage(gfn, buf); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(name+"/server", func(b *testing.B) { r.bench(b, gfns) })
	}
	b.Run("ram", func(b *testing.B) {
		x := spec{Name: "a", Pages: benchPages, InRAM: true, LocalBlocks: true, WS: [][2]uint64{{0, 1}}}
		newReadRig(b, newFakeStore(x)).bench(b, upTo(benchPages))
	})
}

// benchIndex is a store with one image, "a".
func benchIndex(tb testing.TB, p index.Profile) (store *index.Store, pages uint64) {
	return benchIndexWith(tb, p, nil)
}

// benchIndexWith is benchIndex, sealed if there is a key.
func benchIndexWith(tb testing.TB, p index.Profile, keys index.KeySource) (store *index.Store, pages uint64) {
	tb.Helper()
	store, err := index.Open(tb.Context(), filepath.Join(tb.TempDir(), "store"),
		index.OpenOptions{Create: true, Keys: keys})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	memory := os.Getenv("THAW_BENCH_IMAGE")
	if memory == "" {
		memory = filepath.Join(tb.TempDir(), "memory")
		if err := os.WriteFile(memory, compressible(1<<13), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	src, err := index.OpenSource(memory)
	if err != nil {
		tb.Fatal(err)
	}
	set := []index.Run{{GFN: 0, Count: 256}}
	c, _, err := store.Import(tb.Context(), src, index.ImportOptions{Name: "a", Profile: p, WorkingSet: set})
	if err != nil {
		tb.Fatal(err)
	}
	return store, uint64(c.MemoryBytes) / PageSize
}

func notZero(m Image, pages uint64) (gfns []uint64) {
	for gfn := range pages {
		if !m.Zero(gfn) {
			gfns = append(gfns, gfn)
		}
	}
	return gfns
}

// A READ allocates nothing, on a real store, with all that follows it: in whatever order a guest reads, and
// whether or not something is pushed ahead of it.
func TestReadPathDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector sync.Pool drops at random what it is given")
	}
	images := map[string]Store{
		"cold": coldStore(t, spec{Name: "a", Pages: 1 << 13, Seed: 3, Soft: true, WS: [][2]uint64{{0, 256}}},
			mixedTiers),
	}
	for _, p := range []index.Profile{index.ProfileDefault, index.ProfileFast} {
		store, _ := benchIndex(t, p)
		images[p.String()] = NewStore(store)
	}
	key := seal.NewKey()
	sealed, _ := benchIndexWith(t, index.ProfileFast,
		func(context.Context) (*seal.Key, error) { return &key, nil })
	images["sealed"] = NewStore(sealed)
	for p, store := range images {
		r := newReadRig(t, store)
		pages := r.tree.entry("a").pages()
		e := r.tree.entry("a")
		h := e.img.Load()
		if len(*h.orders.Load()) < 2 {
			t.Fatal("the image has no order but its own")
		}
		at := uint64(0)
		orders := map[string]func(i uint64) uint64{
			"number": func(i uint64) uint64 { return i },
			"random": func(i uint64) uint64 { return i * 1237 },
			"set":    func(i uint64) uint64 { return i % 256 },
		}
		for name, order := range orders {
			read := func() {
				at++
				if st := r.read(order(at) % pages); !st.Ok() {
					t.Fatal(st)
				}
				r.throwAway()
			}
			for range pages { // traced, and in all sets
				read()
			}
			if n := testing.AllocsPerRun(2000, read); n >= 1 {
				t.Errorf("%v, %s: %v allocations a READ", p, name, n)
			}
		}
		if r.jobs == 0 {
			t.Error("nothing was to be pushed")
		}
	}
}

// A readRig is a server that is not mounted, with one file open, and no pushers.
type readRig struct {
	*Server
	raw *raw
	in  fuse.ReadIn
	buf []byte
	// jobs are those that were thrown away.
	jobs int
}

func newReadRig(tb testing.TB, store Store) *readRig {
	tb.Helper()
	o := Options{Policy: PolicyLazy, Log: slog.New(slog.DiscardHandler)}
	s := newServer(tb.Context(), store, "/nowhere", o.withDefaults(2))
	s.kernel = &fakeKernel{}
	tb.Cleanup(s.close)
	if err := s.Refresh(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	r := &readRig{Server: s, raw: &raw{fuse.NewDefaultRawFileSystem(), s}, buf: make([]byte, PageSize)}
	r.in.NodeId, r.in.Size = s.memoryNode("a"), PageSize
	in := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: r.in.NodeId}}
	if st := r.raw.Open(nil, &in, new(fuse.OpenOut)); !st.Ok() {
		tb.Fatal(st)
	}
	e := s.tree.entry("a")
	h := e.img.Load()
	orders := append(*h.orders.Load(), h.mem.Orders()...)
	h.orders.Store(&orders)
	h.asked.Store(true)
	return r
}

// read is one READ, answered.
func (r *readRig) read(gfn uint64) fuse.Status {
	r.in.Offset = gfn * PageSize
	res, st := r.raw.Read(nil, &r.in, r.buf)
	if !st.Ok() {
		return st
	}
	_, st = res.(*reply).Slices()
	res.Done()
	return st
}

// throwAway throws away the jobs of pushers.
func (r *readRig) throwAway() {
	for {
		select {
		case <-r.pushers.queue.ready:
			j := r.pushers.queue.take()
			r.jobs++
			r.pushers.ended(j)
			r.clusters.give(j.cluster)
		default:
			return
		}
	}
}

func (r *readRig) bench(b *testing.B, gfns []uint64) {
	leastCPU(b, gfns, func(gfn uint64) {
		if st := r.read(gfn); !st.Ok() {
			b.Fatal(st)
		}
		r.throwAway()
	})
}

// leastCPU reports what reading pages at random takes of a CPU in the best of many short rounds: on a
// machine that is used by others too, the clock says little.
func leastCPU(b *testing.B, gfns []uint64, read func(gfn uint64)) {
	const round = 500
	rnd := rand.New(rand.NewPCG(1, 1))
	order := make([]uint64, round)
	var least fastest
	b.ReportAllocs()
	for b.Loop() {
		for i := range order {
			order[i] = gfns[rnd.IntN(len(gfns))]
		}
		before := cpuTime(b)
		for _, gfn := range order {
			read(gfn)
		}
		least.add(cpuTime(b) - before)
	}
	b.ReportMetric(float64(least.d)/round, "cpu-ns/read")
	b.ReportMetric(0, "ns/op")
}

func cpuTime(tb testing.TB) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
