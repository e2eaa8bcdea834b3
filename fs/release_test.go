package fs

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// An image is released when nobody has it open, and only then; pushes are waited for.
func TestRelease(t *testing.T) {
	store := newFakeStore(wsSpec())
	arrived, free := blocking(store)
	r := newHandRig(t, store, Options{CapTime: time.Nanosecond, Workers: 1})
	if err := r.Release(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if err := r.Release(t.Context(), "a"); err != nil { // never opened
		t.Error(err)
	}
	r.open()
	if err := r.Release(t.Context(), "a"); !errors.Is(err, ErrInUse) {
		t.Errorf("open: %v", err)
	}
	<-arrived
	r.release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Release(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a push under way: %v", err)
	}
	done := make(chan error)
	go func() { done <- r.Release(t.Context(), "a") }()
	close(free)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if all, open := store.opened("a"); all != 1 || open != 0 {
		t.Errorf("%d of %d images are open", open, all)
	}
	if st := r.open(); !st.Ok() { // the store has it still
		t.Error(st)
	}
}

// A checkpoint that nobody told the server of is seen soon after it is asked for.
func TestNewCheckpointIsFound(t *testing.T) {
	a, n := spec{Name: "a", Pages: 10}, spec{Name: "new", Pages: 10}
	store := newFakeStore(a)
	b := mounted(t, store, Options{})
	c := b.client()
	store.set(a, n)
	eventually(t, "the name is there", func() bool {
		return c.try(request{Op: "stat", Path: b.path("new/memory")}).Err == ""
	})
	fd := c.open(b.path("new/memory"), unix.O_RDONLY)
	c.do(request{Op: "readall", FD: fd, Len: 1 << 16, Spec: &n})
}

// Thousands of clones that were opened, read and closed, and that the kernel has not forgotten, cost
// little more than their nodes.
func TestClosedClones(t *testing.T) {
	x := spec{Name: "a", Pages: 8 << 30 / PageSize} // 8 GiB
	for first := uint64(0); first < x.Pages; first += 1 << 15 {
		x.WS = append(x.WS, [2]uint64{first, 1})
	}
	s := testServer(newFakeStore(x))
	defer s.close()
	s.kernel = discardingKernel{}
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	use := func(id string) {
		n := s.tree.lookup(s.tree.entry("a").cloneChild(id, fileMemory))
		in := fuse.InHeader{NodeId: n.id}
		if st := r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)); !st.Ok() {
			t.Fatal(st)
		}
		for _, gfn := range []uint64{1, x.Pages / 2, x.Pages - 1} {
			read := fuse.ReadIn{InHeader: in, Offset: gfn * PageSize, Size: PageSize}
			res, st := r.Read(nil, &read, make([]byte, PageSize))
			if !st.Ok() {
				t.Fatal(st)
			}
			res.Done()
		}
		r.Release(nil, &fuse.ReleaseIn{InHeader: in})
	}
	use("first")
	const clones = 2000
	before := heap()
	for i := range clones {
		use(fmt.Sprint("c", i))
	}
	each := (int64(heap()) - int64(before)) / clones
	t.Logf("%d bytes for each closed clone", each)
	if each > 6<<10 {
		t.Errorf("%d bytes for each closed clone", each)
	}
	if st, _ := s.Stats("a", "c7"); st.LazyPages != 3 || st.PrefetchedPages != 64 {
		t.Errorf("%+v", st.Counters)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// discardingKernel takes everything and remembers nothing.
type discardingKernel struct{}

func (discardingKernel) InodeNotifyStoreCache(uint64, int64, []byte) fuse.Status { return fuse.OK }
func (discardingKernel) InodeNotify(uint64, int64, int64) fuse.Status            { return fuse.OK }
func (discardingKernel) EntryNotify(uint64, string) fuse.Status                  { return fuse.OK }
