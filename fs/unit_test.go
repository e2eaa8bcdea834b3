package fs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// The bitmap against a map, over random operations.
func TestBitmap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, pages := range []uint64{1, 63, 64, 65, 1000, chunkPages, 3*chunkPages + 17} {
		b, model := newBitmap(pages), map[uint64]bool{}
		for range 2000 {
			first := rnd.Uint64N(pages + 2)
			count := rnd.Uint64N(200)
			changed := 0
			add := rnd.IntN(2) == 0
			for gfn := first; gfn < min(first+count, pages); gfn++ {
				if model[gfn] != add {
					changed++
				}
				if add {
					model[gfn] = true
				} else {
					delete(model, gfn)
				}
			}
			got := 0
			if add {
				got = b.addRange(first, count)
			} else {
				got = b.removeRange(first, count)
			}
			if got != changed || b.len() != uint64(len(model)) {
				t.Fatalf("%d pages, [%d,+%d): %d changed, want %d; %d in, want %d",
					pages, first, count, got, changed, b.len(), len(model))
			}
			if page := rnd.Uint64N(pages + 100); b.has(page) != model[page] {
				t.Fatalf("has(%d) = %v", page, b.has(page))
			}
		}
		b.clear()
		if b.len() != 0 || b.has(0) {
			t.Error("clear leaves pages")
		}
	}
}

// Many goroutines add the same pages: each page is new to one of them.
func TestBitmapConcurrent(t *testing.T) {
	const pages = 2 * chunkPages
	b := newBitmap(pages)
	var wg sync.WaitGroup
	added := make([]int, 4)
	for i := range added {
		wg.Go(func() {
			for first := uint64(0); first < pages; first += 7 {
				added[i] += b.addRange(first, 7)
			}
		})
	}
	wg.Wait()
	if sum := added[0] + added[1] + added[2] + added[3]; sum != pages || b.len() != pages {
		t.Errorf("%d added, %d in", sum, b.len())
	}
}

// A number that is taken leads to the next, for the same thing always to the same.
func TestNodeCollision(t *testing.T) {
	tr := newTree()
	e := newEntry(Checkpoint{Name: "a", ID: "a"})
	want := e.child(fileMemory)
	id := nodeID(want.kind, "a", "", 0)
	tr.nodes[id] = &node{id: id, kind: kindStats, e: newEntry(Checkpoint{Name: "b", ID: "b"})}
	peeked := tr.peek(want)
	one, two := tr.lookup(e.child(fileMemory)), tr.lookup(e.child(fileMemory))
	if one != two || one.id == id || one.id != peeked || one.lookups != 2 {
		t.Errorf("%+v %+v, peeked %d", one, two, peeked)
	}
	if n := tr.forget(one.id, 1); n != nil {
		t.Error("forgotten with a lookup left")
	}
	if n := tr.forget(one.id, 1); n != one || tr.node(one.id) != nil {
		t.Errorf("forget: %+v", n)
	}
	if n := tr.forget(one.id, 1); n != nil {
		t.Error("forgotten twice")
	}
}

// Numbers are a function of content: they must not change between versions, or a server that takes
// over would not know what it is asked for.
func TestNodeIDs(t *testing.T) {
	got := []uint64{
		nodeID(kindMemory, "id", "", 0), nodeID(kindCloneMem, "id", "x", 0), nodeID(kindMemory, "id", "", 1),
	}
	want := []uint64{12575821477988710325, 6118420199934665839, 2941798384025551876}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A reader of single pages is found after 16 pages, and never more than two pushes lie before it.
func TestStreams(t *testing.T) {
	const end = 10000
	var s streams
	have := map[uint64]bool{}
	reads, pushed := 0, 0
	for gfn := uint64(100); gfn < end; gfn++ {
		if have[gfn] {
			continue
		}
		reads++
		from, n := s.read(gfn, 1, end)
		if gfn < 100+minStream-1 && n > 0 {
			t.Fatalf("pushed at page %d", gfn)
		}
		if n > 0 && (from <= gfn || from+n > end || from+n > gfn+2*maxAhead+1) {
			t.Fatalf("READ of %d pushes [%d,+%d)", gfn, from, n)
		}
		for i := range n {
			if have[from+i] {
				t.Fatalf("page %d pushed twice", from+i)
			}
			have[from+i] = true
			pushed++
		}
	}
	if reads > 250 {
		t.Errorf("%d READs, %d pages pushed", reads, pushed)
	}
}

// Random reads are no streams.
func TestStreamsRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var s streams
	for range 10000 {
		if _, n := s.read(rnd.Uint64N(1<<20), 1, 1<<20); n > 0 {
			t.Fatal("a stream was found")
		}
	}
}

func TestDirOffsetsSurviveChanges(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a"}, spec{Name: "b"}, spec{Name: "c"}))
	read := func(off uint64, limit int) (names []string, next uint64) {
		s.list(&fuse.ReadIn{InHeader: fuse.InHeader{NodeId: 1}, Offset: off},
			func(e fuse.DirEntry, _ *node) bool {
				if len(names) == limit {
					return false
				}
				names = append(names, e.Name)
				next = e.Off
				return true
			})
		return names, next
	}
	all, _ := read(0, 100)
	first, off := read(0, 4)
	s.store.(*fakeStore).set(spec{Name: "a"}, spec{Name: "b"}, spec{Name: "c"}, spec{Name: "d"})
	if err := s.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	rest, _ := read(off, 100)
	rest = slices.DeleteFunc(rest, func(n string) bool { return n == "d" })
	if d := cmp.Diff(all, append(first, rest...)); d != "" {
		t.Error(d)
	}
}

// fakeKernel takes pushes as a kernel that knows every inode.
type fakeKernel struct {
	mu   sync.Mutex
	runs [][2]uint64
}

func (k *fakeKernel) InodeNotifyStoreCache(_ uint64, off int64, data []byte) fuse.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.runs = append(k.runs, [2]uint64{uint64(off) / PageSize, uint64(len(data)) / PageSize})
	return fuse.OK
}
func (k *fakeKernel) InodeNotify(uint64, int64, int64) fuse.Status { return fuse.OK }
func (k *fakeKernel) EntryNotify(uint64, string) fuse.Status       { return fuse.OK }

// testServer is a server that is not mounted.
func testServer(store Store) *Server {
	o := Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}.withDefaults(2)
	s := newServer(context.Background(), store, "/nowhere", o)
	s.kernel = &fakeKernel{}
	if err := s.Refresh(context.Background()); err != nil {
		panic(err)
	}
	return s
}

// memoryNode is the number of a checkpoint's memory, looked up.
func (s *Server) memoryNode(name string) uint64 {
	return s.tree.lookup(s.tree.entry(name).child(fileMemory)).id
}

// One notification goes for each contiguous run, round what is in flight or there already.
func TestPushRuns(t *testing.T) {
	x := spec{Name: "a", Pages: 1000}
	s := testServer(newFakeStore(x))
	defer s.close()
	k := s.kernel.(*fakeKernel)
	m := s.memoryOf(s.tree.node(s.memoryNode("a")))
	m.inflight.addRange(105, 2)
	m.sess.Load().resident.addRange(200, 1)
	p := &Piece{GFNs: append(append(slices.Collect(run(100, 10)), slices.Collect(run(198, 302))...), 50, 2000)}
	p.Pages = make([]byte, len(p.GFNs)*PageSize)
	var n uint64
	err := s.push(m, m.sess.Load(), p, func(_, count uint64) { n += count })
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]uint64{{100, 5}, {107, 3}, {198, 2}, {201, 256}, {457, 43}, {50, 1}}
	if d := cmp.Diff(want, k.runs); d != "" || n != 310 {
		t.Error(n, d)
	}
	if err := s.push(m, m.newSession(), p, func(_, _ uint64) {}); err != errStale {
		t.Errorf("into a cache that was dropped: %v", err)
	}
}

func run(first, count uint64) func(func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for i := range count {
			if !yield(first + i) {
				return
			}
		}
	}
}

// A READ allocates nothing, lazy or recorded, at the first touch or later.
func TestReadDoesNotAllocate(t *testing.T) {
	x := spec{Name: "a", Pages: 4096, InRAM: true, WS: [][2]uint64{{0, 1}}}
	s := testServer(newFakeStore(x))
	defer s.close()
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	id := s.memoryNode("a")
	s.SetPolicy(PolicyLazy)
	open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}}
	if st := r.Open(nil, &open, new(fuse.OpenOut)); !st.Ok() {
		t.Fatal(st)
	}
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: id}, Size: PageSize}
	buf := make([]byte, PageSize)
	page := uint64(0)
	read := func() {
		in.Offset = page * 2 % x.Pages * PageSize
		page++
		res, st := r.Read(nil, in, buf)
		if !st.Ok() || res.Size() != PageSize {
			t.Fatal(st)
		}
		res.(*reply).Slices()
		res.Done()
	}
	read() // the first makes the chunks of the sets
	if n := testing.AllocsPerRun(1000, read); n >= 1 {
		t.Errorf("%v allocations a READ", n)
	}
}

// An OPEN that another server may have begun with is answered first and prefetches after.
func TestResentOpen(t *testing.T) {
	x := wsSpec()
	store := newFakeStore(x)
	release := make(chan struct{})
	store.onFeed = func(int) error { <-release; return nil }
	s := testServer(store)
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: s.memoryNode("a"), Unique: resent | 7}}
	if st := r.Open(nil, &open, new(fuse.OpenOut)); !st.Ok() { // returns
		t.Fatal(st)
	}
	close(release)
	e := s.tree.entry("a")
	eventually(t, "the prefetch is over", func() bool { return e.main.flight.over.Load() })
	if st, _ := s.Stats("a", ""); st.PrefetchedPages != 1024 {
		t.Errorf("%+v", st.Counters)
	}
	s.close()
}

func TestParsePolicy(t *testing.T) {
	for _, p := range []Policy{PolicyWorkingSet, PolicyEager, PolicyLazy} {
		if got, err := ParsePolicy(p.String()); got != p || err != nil {
			t.Errorf("%v: %v %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("bold"); err == nil {
		t.Error("bold is a policy")
	}
}

func FuzzParseMountInfo(f *testing.F) {
	f.Add("36 35 98:0 /a\\040b /mnt/x\\040y rw,noatime shared:1 - fuse.thaw thaw rw\n")
	f.Add("36 35 98 / / - ")
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parseMountInfo(line); ok && m.fsType == "" {
			t.Errorf("%q: %+v", line, m)
		}
	})
}

func TestParseMountInfo(t *testing.T) {
	m, ok := parseMountInfo("36 35 0:98 / /mnt/x\\040y rw shared:1 - fuse.thaw thaw rw\n")
	if want := (mountInfo{98, "/mnt/x y", "fuse.thaw"}); !ok || m != want {
		t.Errorf("%+v", m)
	}
}

// An image that the host cannot hold is not filled up with zero pages.
func TestEagerOfSparseGiant(t *testing.T) {
	x := spec{Name: "a", Pages: 3000, ZeroEvery: 1000}
	for _, ram := range []uint64{2 * 3000 * PageSize, 2*3000*PageSize - 2} {
		s := testServer(newFakeStore(x))
		s.ram = ram
		s.SetPolicy(PolicyEager)
		r := &raw{fuse.NewDefaultRawFileSystem(), s}
		open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: s.memoryNode("a")}}
		if st := r.Open(nil, &open, new(fuse.OpenOut)); !st.Ok() {
			t.Fatal(st)
		}
		want := uint64(3000)
		if ram < 2*3000*PageSize {
			want -= 3
		}
		if st, _ := s.Stats("a", ""); st.PrefetchedPages != want {
			t.Errorf("%d pages with %d bytes of RAM, want %d", st.PrefetchedPages, ram, want)
		}
		s.close()
	}
}

// Opening an image of 1 TiB costs the tree's own sets next to nothing.
func TestGiantImage(t *testing.T) {
	x := spec{Name: "a", Pages: 1 << 28}
	s := testServer(newFakeStore(x))
	defer s.close()
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: s.memoryNode("a")}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if st := r.Open(nil, &open, new(fuse.OpenOut)); !st.Ok() {
		t.Fatal(st)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes allocated", n)
	}
	in := &fuse.ReadIn{InHeader: open.InHeader, Size: PageSize, Offset: 1<<40 - PageSize}
	res, st := r.Read(nil, in, make([]byte, PageSize))
	if !st.Ok() || res.Size() != PageSize {
		t.Fatal(st)
	}
	res.Done()
}

// Work that yields waits for the last READ, and is not held up when there is none.
func TestDemandYield(t *testing.T) {
	var d demand
	d.yield(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d.begin()
	d.begin()
	d.yield(ctx) // returns: the waiter is cancelled
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		for d.outstanding.Load() > 0 {
			d.yield(context.Background())
		}
	}()
	d.end()
	select {
	case <-waited:
		t.Fatal("went on with a READ outstanding")
	default:
	}
	d.end()
	<-waited
	if d.waiters.Load() != 0 {
		t.Error("waiters are left")
	}
}

// The prober answers for any path, and errors of one file are not errors of the prober.
func TestProber(t *testing.T) {
	p := startProber(t)
	odd := filepath.Join(t.TempDir(), "a \"file\"\nof two lines")
	if err := os.WriteFile(odd, make([]byte, 3*PageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Cached(t.Context(), odd+"-missing"); err == nil || errors.Is(err, ErrNoProber) {
		t.Errorf("a missing file: %v", err)
	}
	if n, err := p.Cached(t.Context(), odd); n != 3 || err != nil {
		t.Errorf("%d pages, %v", n, err)
	}
	if p.Owns(uint32(os.Getpid())) || !p.Owns(p.tid) {
		t.Error("whose opens are whose")
	}
	if _, err := StartProber(t.Context(), "/bin/true"); !errors.Is(err, ErrNoProber) {
		t.Errorf("a program that is no prober: %v", err)
	}
}
