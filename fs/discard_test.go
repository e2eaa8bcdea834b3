package fs

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE

// Pages that a clone discards read as zeros in it until it is closed, in every way of reading, also for
// those who open it meanwhile, and in nothing else.
func TestDiscard(t *testing.T) {
	x := wsSpec()
	x.LocalBlocks = true
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	path := b.path("a/clones/x/memory")
	fd := c.open(path, unix.O_RDWR)
	m := c.mapFile(fd, x.Pages)
	own := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	peer := c.mapFile(c.open(b.path("a/clones/y/memory"), unix.O_RDWR), x.Pages)
	before := c.do(request{Op: "cached", FD: fd}).N
	holes := append(append(pages(5, 20), pages(1000, 100)...), 4095)
	for _, r := range [][2]uint64{{5, 20}, {1000, 100}, {4095, 1}} {
		c.do(request{Op: "fallocate", FD: fd, Flags: punch, Off: int64(r[0] * PageSize),
			Len: int(r[1] * PageSize)})
	}
	if after := c.do(request{Op: "cached", FD: fd}).N; after >= before {
		t.Errorf("%d pages in the page cache, %d before", after, before)
	}
	is := map[uint64]bool{}
	for _, gfn := range holes {
		is[gfn] = true
	}
	var rest []uint64
	for gfn := range x.Pages {
		if !is[gfn] {
			rest = append(rest, gfn)
		}
	}
	check := func(what string) {
		t.Helper()
		if res := c.try(request{Op: "touch", Map: m, GFNs: holes, Zero: true}); res.Err != "" {
			t.Errorf("%s: %s", what, res.Err)
		}
		if res := c.try(request{Op: "touch", Map: m, GFNs: rest, Spec: &x}); res.Err != "" {
			t.Errorf("%s: %s", what, res.Err)
		}
		for _, other := range []int{own, peer} {
			if res := c.try(request{Op: "touch", Map: other, GFNs: upTo(x.Pages), Spec: &x}); res.Err != "" {
				t.Errorf("%s, elsewhere: %s", what, res.Err)
			}
		}
		data := c.do(request{Op: "pread", FD: fd, Off: 999 * PageSize, Len: 102 * PageSize}).Data
		for i := range uint64(102) {
			got := data[i*PageSize:][:PageSize]
			if is[999+i] && string(got) != string(make([]byte, PageSize)) {
				t.Errorf("%s: read(2) of page %d is not zero", what, 999+i)
			} else if !is[999+i] && x.check(999+i, got) != nil {
				t.Errorf("%s: read(2) of page %d", what, 999+i)
			}
		}
	}
	check("at first")
	c.do(request{Op: "evict", FD: fd})
	check("after eviction")
	for _, policy := range []Policy{PolicyWorkingSet, PolicyEager} {
		b.SetPolicy(policy)
		if err := b.Drop(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		again := c.open(path, unix.O_RDWR)
		c.do(request{Op: "unmap", Map: m})
		c.close(fd)
		fd = again
		m = c.mapFile(fd, x.Pages)
		check("opened again, " + policy.String())
	}
	// They last as long as a mapping.
	c.close(fd)
	c.do(request{Op: "touch", Map: m, GFNs: holes, Zero: true})
	c.do(request{Op: "unmap", Map: m})
	fd = c.open(path, unix.O_RDWR)
	m = c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
}

// Whoever opens a clone at once after a machine that discarded pages has closed it finds the image,
// whatever is brought and read meanwhile, and so does one who opens it when the kernel has forgotten it.
func TestDiscardsEnd(t *testing.T) {
	x := wsSpec()
	x.LocalBlocks, x.ZeroEvery = true, 0
	for _, policy := range []Policy{PolicyLazy, PolicyWorkingSet, PolicyEager} {
		b := mounted(t, newFakeStore(x), Options{Policy: policy})
		c := b.client()
		path := b.path("a/clones/x/memory")
		seed := rand.Uint64()
		t.Logf("%v, seed %d", policy, seed)
		rnd := rand.New(rand.NewPCG(seed, uint64(policy)))
		rounds := 60
		if testing.Short() {
			rounds = 8
		}
		for i := range rounds {
			fd := c.open(path, unix.O_RDWR)
			m := c.mapFile(fd, x.Pages)
			c.do(request{Op: "touch", Map: m, GFNs: []uint64{rnd.Uint64N(x.Pages)}, Spec: &x})
			first := rnd.Uint64N(x.Pages - 64)
			c.do(request{Op: "fallocate", FD: fd, Flags: punch, Off: int64(first * PageSize), Len: 64 * PageSize})
			c.do(request{Op: "touch", Map: m, GFNs: pages(first, 64), Zero: true})
			c.close(fd)
			c.do(request{Op: "unmap", Map: m})
			if i%20 == 19 {
				clones := b.tree.peek(b.tree.entry("a").child(dirClones))
				if st := b.kernel.EntryNotify(clones, "x"); !st.Ok() {
					t.Fatal(st)
				}
			}
			fd = c.open(path, unix.O_RDONLY)
			m = c.mapFile(fd, x.Pages)
			res := c.try(request{Op: "touch", Map: m, GFNs: pages(first, 64), Spec: &x})
			if res.Err != "" {
				t.Fatalf("%v, round %d: %s", policy, i, res.Err)
			}
			c.do(request{Op: "unmap", Map: m})
			c.close(fd)
		}
		if b.stats("a", "x").Poisoned {
			t.Error("poisoned")
		}
	}
}

// An OPEN that the server has before the RELEASE of the machine that has just ended waits for it, and a
// file that the prober has open keeps no holes. A clone that was closed is forgotten like any other.
func TestDiscardsEndBeforeOpen(t *testing.T) {
	x := spec{Name: "a", Pages: 16, Seed: 1}
	s := testServer(newFakeStore(x))
	defer s.close()
	k := newModelKernel(s)
	s.kernel = k
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	e := s.tree.entry("a")
	id := s.tree.lookup(e.cloneChild("x", fileMemory)).id
	k.lookup(id, x, true)
	in := fuse.InHeader{NodeId: id}
	if st := r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)); !st.Ok() {
		t.Fatal(st)
	}
	m := s.tree.node(id).mem.Load()
	for range 20 {
		k.discard(r, id, 3, 4)
		if err := s.opened(m, nil); err != nil { // the prober
			t.Fatal(err)
		}
		next := make(chan fuse.Status)
		go func() { next <- r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)) }()
		pause()
		r.Release(nil, &fuse.ReleaseIn{InHeader: in})
		if st := <-next; !st.Ok() {
			t.Fatal(st)
		}
		if m.holes.Load() != nil {
			t.Fatal("the holes are still there")
		}
		k.restored(id)
		for gfn := range uint64(16) {
			k.touch(r, id, gfn)
		}
		r.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: s.probeHandle()})
	}
	r.Release(nil, &fuse.ReleaseIn{InHeader: in})
	k.inodes[id].opens--
	r.Forget(id, uint64(k.evict(id)))
	if len(e.memories()) > 0 || s.tree.node(id) != nil {
		t.Error("the clone is kept")
	}
	for _, fault := range k.faults {
		t.Error(fault)
	}
}

// A clone whose zeros cannot be dropped is not opened any more.
func TestDiscardsThatStay(t *testing.T) {
	x := spec{Name: "a", Pages: 16, Seed: 1}
	s := testServer(newFakeStore(x))
	defer s.close()
	s.kernel = failingKernel{}
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	id := s.tree.lookup(s.tree.entry("a").cloneChild("x", fileMemory)).id
	in := fuse.InHeader{NodeId: id}
	for range 2 {
		st := r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut))
		if s.tree.node(id).mem.Load().poisoned.Load() {
			if st != fuse.EIO {
				t.Errorf("open: %v", st)
			}
			return
		}
		if !st.Ok() {
			t.Fatal(st)
		}
		r.Fallocate(nil, &fuse.FallocateIn{InHeader: in, Mode: punch, Length: PageSize})
		r.Release(nil, &fuse.ReleaseIn{InHeader: in})
	}
	t.Error("it is not poisoned")
}

// A failingKernel drops nothing.
type failingKernel struct{ notifier }

func (failingKernel) InodeNotify(uint64, int64, int64) fuse.Status { return fuse.EIO }

func pages(first, count uint64) (gfns []uint64) {
	for i := range count {
		gfns = append(gfns, first+i)
	}
	return gfns
}

// What is no discard of whole pages of a clone is refused, and leaves the clone as it is.
func TestDiscardRefuses(t *testing.T) {
	x := spec{Name: "a", Pages: 16, Seed: 3}
	b := mounted(t, newFakeStore(x), Options{})
	c := b.client()
	fd := c.open(b.path("a/clones/x/memory"), unix.O_RDWR)
	for _, r := range []struct {
		flags     int
		off, size int
		want      unix.Errno
	}{
		{punch, 10, PageSize, unix.EINVAL},
		{punch, PageSize, 100, unix.EINVAL},
		{0, 0, PageSize, unix.EROFS},
		{unix.FALLOC_FL_KEEP_SIZE, 0, PageSize, unix.EROFS},
		{unix.FALLOC_FL_ZERO_RANGE, 0, PageSize, unix.EOPNOTSUPP},
		{unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, 0, PageSize, unix.EOPNOTSUPP},
		{unix.FALLOC_FL_COLLAPSE_RANGE, 0, PageSize, unix.EOPNOTSUPP},
	} {
		res := c.try(request{Op: "fallocate", FD: fd, Flags: r.flags, Off: int64(r.off), Len: r.size})
		if res.Errno != r.want {
			t.Errorf("%#x at %d, %d bytes: %q, want %v", r.flags, r.off, r.size, res.Err, r.want)
		}
	}
	main := c.open(b.path("a/memory"), unix.O_RDONLY)
	for _, fd := range []int{main, c.open(b.path("a/clones/x/memory"), unix.O_RDONLY)} {
		if res := c.try(request{Op: "fallocate", FD: fd, Flags: punch, Len: PageSize}); res.Errno != unix.EBADF {
			t.Errorf("of what is not open for writing: %q", res.Err)
		}
	}
	c.do(request{Op: "readall", FD: fd, Len: 1 << 16, Spec: &x})
	// Beyond the end there is nothing to discard.
	c.do(request{Op: "fallocate", FD: fd, Flags: punch, Off: 15 * PageSize, Len: 1 << 20})
	c.do(request{Op: "fallocate", FD: fd, Flags: punch, Off: 1 << 40, Len: 1 << 20})
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(15), Spec: &x})
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{15}, Zero: true})
}

// Discards while the clone is read, pushed into, dropped and opened: a discarded page never
// has its old bytes again, and no other page has zeros.
func TestDiscardAtOnce(t *testing.T) {
	x := wsSpec()
	x.LocalBlocks, x.ZeroEvery = true, 0
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyEager})
	c := b.client()
	path := b.path("a/clones/x/memory")
	fd := c.open(path, unix.O_RDWR)
	m := c.mapFile(fd, x.Pages)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := b.Drop(t.Context(), "a"); err != nil {
				t.Error(err)
			}
			c.close(c.open(path, unix.O_RDONLY))
		}
	})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 6))
	is := map[uint64]bool{}
	rounds := 150
	if testing.Short() {
		rounds = 50
	}
	for range rounds {
		first := rnd.Uint64N(x.Pages - 8)
		n := 1 + rnd.Uint64N(8)
		c.do(request{Op: "fallocate", FD: fd, Flags: punch, Off: int64(first * PageSize),
			Len: int(n * PageSize)})
		var holes, rest []uint64
		for gfn := first; gfn < first+n; gfn++ {
			is[gfn] = true
		}
		for range 64 {
			if gfn := rnd.Uint64N(x.Pages); is[gfn] {
				holes = append(holes, gfn)
			} else {
				rest = append(rest, gfn)
			}
		}
		holes = append(holes, pages(first, n)...)
		c.do(request{Op: "touch", Map: m, GFNs: holes, Zero: true})
		c.do(request{Op: "touch", Map: m, GFNs: rest, Spec: &x})
	}
	close(stop)
	wg.Wait()
}

// A clone with holes is read without allocating, too.
func TestReadOfHolesDoesNotAllocate(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a", Pages: 4096, InRAM: true}))
	defer s.close()
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	id := s.tree.lookup(s.tree.entry("a").cloneChild("x", fileMemory)).id
	if st := r.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}}, new(fuse.OpenOut)); !st.Ok() {
		t.Fatal(st)
	}
	if st := r.Fallocate(nil, &fuse.FallocateIn{
		InHeader: fuse.InHeader{NodeId: id}, Mode: punch, Offset: 64 * PageSize, Length: 64 * PageSize,
	}); !st.Ok() {
		t.Fatal(st)
	}
	for _, size := range []uint32{PageSize, 32 * PageSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: id}, Size: size}
			buf := make([]byte, size)
			read := func() {
				in.Offset = (in.Offset + 5*PageSize) % (256 * PageSize)
				res, st := r.Read(nil, in, buf)
				if !st.Ok() {
					t.Fatal(st)
				}
				res.Done()
			}
			read()
			if n := testing.AllocsPerRun(500, read); n >= 1 {
				t.Errorf("%v allocations a READ", n)
			}
		})
	}
}
