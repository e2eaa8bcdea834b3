package fs

import (
	"context"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A panic of the store is an error of the request that met it: of a READ, of an OPEN, of a file, of a
// prefetch, of a push. The server serves on, and nothing is left in flight.
func TestPanicInStore(t *testing.T) {
	x := wsSpec()
	x.LocalBlocks, x.Files = true, map[string]string{"state": "cpu"}
	store := newFakeStore(x)
	bang := func() { panic("injected") }
	store.onRead = func(gfn uint64) error {
		if gfn == 40 || gfn == 41 {
			bang()
		}
		return nil
	}
	opens, feeds := 0, 0
	store.onOpen = func(string) error {
		if opens++; opens == 1 {
			bang()
		}
		return nil
	}
	store.onFeed = func(int) error {
		if feeds++; feeds == 2 {
			bang()
		}
		return nil
	}
	b := mounted(t, store, Options{Workers: 1})
	c := b.client()
	if res := c.try(request{Op: "open", Path: b.path("a/memory")}); res.Errno != unix.EIO {
		t.Errorf("open: %q", res.Err)
	}
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	if st := b.stats("a", ""); st.FailedPrefetches != 1 || st.Open != 1 {
		t.Errorf("after the prefetch: %+v", st)
	}
	m := c.mapFile(fd, x.Pages)
	if res := c.try(request{Op: "touch", Map: m, GFNs: []uint64{40, 41}}); res.Bus != 2 {
		t.Errorf("%d SIGBUS: %s", res.Bus, res.Err)
	}
	res := c.try(request{Op: "pread", FD: fd, Off: 32 * PageSize, Len: 32 * PageSize})
	if res.Errno != unix.EIO && len(res.Data) > 8*PageSize {
		t.Errorf("read(2) over it: %d bytes", len(res.Data))
	}
	store.filePanic.Store(true)
	if res := c.try(request{Op: "readfile", Path: b.path("a/state")}); res.Errno != unix.EIO {
		t.Errorf("state: %q", res.Err)
	}
	store.filePanic.Store(false)
	c.do(request{Op: "readfile", Path: b.path("a/state")})
	c.do(request{Op: "touch", Map: m, GFNs: append(upTo(40), 50, 4095), Spec: &x})
	mem := b.tree.entry("a").main
	eventually(t, "nothing is in flight", func() bool {
		return mem.inflight.len() == 0 && b.demand.outstanding.Load() == 0
	})
	if n := b.metrics.panics.Load(); n < 6 {
		t.Errorf("%d panics counted", n)
	}
	c.end()
	eventually(t, "the image is closed", func() bool { return b.Release(t.Context(), "a") == nil })
}

// Orders that panic are asked for once, not with every READ.
func TestPanicInOrders(t *testing.T) {
	store := newFakeStore(wsSpec())
	r := newHandRig(t, panickingOrders{store}, Options{Policy: PolicyLazy})
	r.goes("pushing", r.pushers.run)
	r.open()
	r.read(100, 1, 0)
	eventually(t, "it panics", func() bool { return r.metrics.panics.Load() > 0 })
	eventually(t, "the pusher is done", func() bool {
		e := r.tree.entry("a")
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.busy == 0
	})
	if !r.tree.entry("a").img.Load().asked.Load() {
		t.Error("the next READ will ask again")
	}
	r.release()
}

// A panickingOrders is a store of images that have a fault.
type panickingOrders struct{ *fakeStore }

func (s panickingOrders) OpenImage(ctx context.Context, c Checkpoint) (Image, error) {
	m, err := s.fakeStore.OpenImage(ctx, c)
	return panickingImage{m}, err
}

type panickingImage struct{ Image }

func (panickingImage) Orders() []Order { panic("injected") }

// So is a panic in the server itself: every request that has an answer gets EIO.
func TestPanicInHandlers(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a", Pages: 100}))
	defer s.close()
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	// A node of no checkpoint: whatever looks at its checkpoint panics.
	broken := s.tree.lookup(&node{kind: kindMemory, detail: "broken"})
	dir := s.tree.lookup(&node{kind: kindCheckpoint, detail: "broken"})
	clone := s.tree.lookup(&node{kind: kindCloneMem, detail: "broken"})
	in := fuse.InHeader{NodeId: broken.id}
	for name, do := range map[string]func() fuse.Status{
		"LOOKUP": func() fuse.Status {
			return r.Lookup(nil, &fuse.InHeader{NodeId: dir.id}, "memory", new(fuse.EntryOut))
		},
		"OPEN": func() fuse.Status { return r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)) },
		"READ": func() fuse.Status {
			_, st := r.Read(nil, &fuse.ReadIn{InHeader: in, Size: PageSize}, make([]byte, PageSize))
			return st
		},
		"READDIR": func() fuse.Status {
			return r.ReadDir(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: dir.id}},
				fuse.NewDirEntryList(make([]byte, 4096), 0))
		},
		"FALLOCATE": func() fuse.Status {
			return r.Fallocate(nil, &fuse.FallocateIn{
				InHeader: fuse.InHeader{NodeId: clone.id}, Mode: punch, Length: PageSize,
			})
		},
		"WRITE": func() fuse.Status {
			_, st := r.Write(nil, &fuse.WriteIn{InHeader: fuse.InHeader{NodeId: clone.id}}, nil)
			return st
		},
	} {
		before := s.metrics.panics.Load()
		if st := do(); st != fuse.EIO || s.metrics.panics.Load() != before+1 {
			t.Errorf("%s: %v, %d panics", name, st, s.metrics.panics.Load()-before)
		}
	}
	before := s.metrics.panics.Load()
	r.Release(nil, &fuse.ReleaseIn{InHeader: in})
	if s.metrics.panics.Load() != before+1 {
		t.Error("RELEASE does not panic")
	}
	done := make(chan struct{})
	s.goes("a test", func() { defer close(done); panic("bang") })
	<-done
}

// A prober that panics costs a prefetch, which is counted; the open returns.
func TestPanicInProber(t *testing.T) {
	r := newHandRig(t, newFakeStore(wsSpec()), Options{
		Policy: PolicyWorkingSetFull, Prober: panickingProber{},
	})
	r.open()
	m := r.tree.entry("a").main
	m.e.mu.Lock()
	first := m.flight
	m.e.mu.Unlock()
	// An open may return before its flight is over, and the next one would join that.
	eventually(t, "the first prefetch is over", func() bool { return first.over.Load() })
	if st := r.open(); !st.Ok() {
		t.Fatal(st)
	}
	if st, _ := r.Stats("a", ""); st.Prefetches != 2 {
		t.Errorf("%+v", st.Counters)
	}
}

type panickingProber struct{}

func (panickingProber) Owns(uint32) bool { return false }

func (panickingProber) Cached(context.Context, string) (uint64, error) { panic("bang") }
