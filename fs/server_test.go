package fs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
)

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
	if err := s.push(m, m.newSession(m.e.epoch.Load()), p, func(_, _ uint64) {}); err != errStale {
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
	s.SetPolicy(PolicyWorkingSetFull)
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: s.memoryNode("a"), Unique: resent | 7}}
	if st := r.Open(nil, &open, new(fuse.OpenOut)); !st.Ok() { // returns
		t.Fatal(st)
	}
	close(release)
	e := s.tree.entry("a")
	eventually(t, "the prefetch is over", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.main.flight.over.Load()
	})
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
	if want := (mountInfo{36, 98, "/", "/mnt/x y", "fuse.thaw", "rw"}); !ok || m != want {
		t.Errorf("%+v", m)
	}
}

// A prober that does not answer, or has ended, is started again; one question is lost.
func TestProberStartsAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 3*PageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, sig := range map[string]os.Signal{"killed": os.Kill, "frozen": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			p := startProber(t)
			if err := p.child.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			old := p.tid.Load()
			if _, err := p.Cached(t.Context(), file); !errors.Is(err, ErrNoProber) {
				t.Errorf("when it is gone: %v", err)
			}
			if _, err := p.Cached(t.Context(), file); !errors.Is(err, ErrNoProber) {
				t.Errorf("too soon: %v", err)
			}
			if p.Owns(old) || p.Owns(0) {
				t.Error("opens are those of a prober that is gone")
			}
			p.started = p.started.Add(-restartEvery)
			if n, err := p.Cached(t.Context(), file); n != 3 || err != nil {
				t.Errorf("started again: %d pages, %v", n, err)
			}
		})
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
	if p.Owns(uint32(os.Getpid())) || !p.Owns(p.tid.Load()) {
		t.Error("whose opens are whose")
	}
	if _, err := StartProber(t.Context(), "/bin/true"); !errors.Is(err, ErrNoProber) {
		t.Errorf("a program that is no prober: %v", err)
	}
}
