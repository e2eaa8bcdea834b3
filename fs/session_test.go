package fs

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A handRig is a server that is not mounted, and requests made by hand.
type handRig struct {
	*Server
	t   *testing.T
	raw *raw
	id  uint64
}

func newHandRig(t *testing.T, store Store, o Options) *handRig {
	t.Helper()
	o.Log = testLog(t)
	s := newServer(t.Context(), store, "/nowhere", o.withDefaults(2))
	s.kernel = &fakeKernel{}
	t.Cleanup(s.close)
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &handRig{s, t, &raw{fuse.NewDefaultRawFileSystem(), s}, s.memoryNode("a")}
}

func (r *handRig) open() fuse.Status {
	return r.raw.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: r.id}}, new(fuse.OpenOut))
}

func (r *handRig) release() {
	r.raw.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: r.id}})
}

// read is a READ that is answered.
func (r *handRig) read(gfn, count uint64, flags uint32) {
	r.t.Helper()
	in := &fuse.ReadIn{
		InHeader: fuse.InHeader{NodeId: r.id}, Offset: gfn * PageSize,
		Size: uint32(count * PageSize), ReadFlags: flags,
	}
	res, st := r.raw.Read(nil, in, make([]byte, count*PageSize))
	if !st.Ok() {
		r.t.Fatal(st)
	}
	res.Done()
}

func (r *handRig) mem() *memoryFile { return r.memoryOf(r.tree.node(r.id)) }

// blocking has a store's feeds wait, each until the test lets it go.
func blocking(store *fakeStore) (arrived chan int, free chan struct{}) {
	arrived, free = make(chan int, 100), make(chan struct{})
	store.onFeed = func(piece int) error {
		arrived <- piece
		<-free
		return nil
	}
	return arrived, free
}

// The last close ends the restore of those who have closed, never the restore of those who open it
// meanwhile; and an open in between does not join the ended restore.
func TestOpenAfterLastClose(t *testing.T) {
	store := newFakeStore(wsSpec())
	arrived, free := blocking(store)
	r := newHandRig(t, store, Options{
		Policy: PolicyWorkingSetFull, CapTime: time.Nanosecond, Workers: 1,
	})
	if st := r.open(); !st.Ok() { // capped: it goes on behind the open
		t.Fatal(st)
	}
	<-arrived
	r.release() // ended, though it still waits for the disk
	r.opts.CapTime = 0
	done := make(chan fuse.Status)
	go func() { done <- r.open() }()
	<-arrived // a restore of its own
	close(free)
	if st := <-done; !st.Ok() {
		t.Fatal(st)
	}
	st, err := r.Stats("a", "")
	if err != nil || st.PrefetchedPages != 1024 || st.FailedPrefetches != 0 {
		t.Errorf("the open returned with %+v, %v", st.Counters, err)
	}
	r.release()
}

// An open that is under way when the image is made cold brings its pages into the cold cache.
func TestOpenWhileDropped(t *testing.T) {
	store := newFakeStore(wsSpec())
	arrived, free := blocking(store)
	r := newHandRig(t, store, Options{Policy: PolicyWorkingSetFull, Workers: 1})
	done := make(chan fuse.Status)
	go func() { done <- r.open() }()
	<-arrived
	if err := r.Drop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	close(free)
	if st := <-done; !st.Ok() {
		t.Fatal(st)
	}
	if got := r.mem().sess.Load().resident.len(); got != 1024 {
		t.Errorf("%d pages when it returns", got)
	}
	r.release()
}

// An open that is under way when a record begins brings nothing into it, nor does what it has begun.
func TestOpenWhileRecordStarts(t *testing.T) {
	store := newFakeStore(wsSpec())
	arrived, free := blocking(store)
	r := newHandRig(t, store, Options{RecordWindow: time.Hour, Workers: 1})
	done := make(chan fuse.Status)
	go func() { done <- r.open() }()
	<-arrived
	if err := r.StartRecord(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	close(free)
	if st := <-done; !st.Ok() {
		t.Fatal(st)
	}
	if got := r.mem().sess.Load().resident.len(); got != 0 {
		t.Errorf("%d pages were pushed into the record", got)
	}
	r.read(7, 1, 0)
	r.read(3, 1, 0)
	set, err := r.Record(t.Context(), "a", RecordOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]uint64{7, 3}, gfnsOf(set)); d != "" {
		t.Error(d)
	}
	r.release()
}

// What a machine reads that was already running is in no record; so there is none.
func TestRunningMachineSpoilsRecord(t *testing.T) {
	for name, begin := range map[string]func(*handRig) error{
		"record": func(r *handRig) error { return r.StartRecord(r.t.Context(), "a") },
		"drop":   func(r *handRig) error { return r.Drop(r.t.Context(), "a") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newHandRig(t, newFakeStore(spec{Name: "a", Pages: 1000}), Options{RecordWindow: time.Hour})
			r.open()
			if err := begin(r); err != nil {
				t.Fatal(err)
			}
			r.read(100, 1, 0) // its own
			r.open()
			r.read(200, 1, 0)
			if _, err := r.Record(t.Context(), "a", RecordOptions{Force: true}); !errors.Is(err, ErrNotCold) {
				t.Errorf("record: %v", err)
			}
			if err := begin(r); err != nil {
				t.Fatal(err)
			}
			r.open()
			r.read(300, 1, 0)
			if _, err := r.Record(t.Context(), "a", RecordOptions{Force: true}); err != nil {
				t.Errorf("record, begun again: %v", err)
			}
		})
	}
}

// refusingKernel cannot drop a page cache.
type refusingKernel struct{ fakeKernel }

func (*refusingKernel) InodeNotify(uint64, int64, int64) fuse.Status { return fuse.EIO }

// A record of an image that could not be made cold is none.
func TestRecordAfterFailedDrop(t *testing.T) {
	r := newHandRig(t, newFakeStore(spec{Name: "a", Pages: 1000}), Options{RecordWindow: time.Hour})
	r.open()
	r.kernel = &refusingKernel{}
	if err := r.StartRecord(t.Context(), "a"); err == nil {
		t.Fatal("the drop does not fail")
	}
	r.open()
	r.read(1, 1, 0)
	if _, err := r.Record(t.Context(), "a", RecordOptions{Force: true}); !errors.Is(err, ErrNotCold) {
		t.Errorf("record: %v", err)
	}
}

// A READ that goes past the page cache locks no page, and does not end another's READ of it.
func TestDirectReadBesideBuffered(t *testing.T) {
	store := newFakeStore(spec{Name: "a", Pages: 100})
	arrived, free := make(chan struct{}), make(chan struct{})
	var second atomic.Bool
	store.onRead = func(uint64) error {
		if !second.Swap(true) {
			close(arrived)
			<-free
		}
		return nil
	}
	r := newHandRig(t, store, Options{Policy: PolicyLazy})
	r.open()
	var buffered sync.WaitGroup
	buffered.Go(func() { r.read(5, 1, 0) })
	<-arrived
	r.read(4, 3, fuse.READ_LOCKOWNER)
	m := r.mem()
	if !m.inflight.has(5) || m.inflight.len() != 1 || m.sess.Load().resident.len() != 0 {
		t.Errorf("%d pages are locked, page 5: %v", m.inflight.len(), m.inflight.has(5))
	}
	close(free)
	buffered.Wait()
	if m.inflight.len() != 0 || m.sess.Load().resident.len() != 1 {
		t.Errorf("%d in flight, %d resident", m.inflight.len(), m.sess.Load().resident.len())
	}
}

// The next READ of a page may come in before the server has noted that the one before was answered: it is in
// flight all the same.
func TestNextReadBeforeDone(t *testing.T) {
	store := newFakeStore(spec{Name: "a", Pages: 100})
	arrived, free := make(chan struct{}), make(chan struct{})
	reads := 0
	store.onRead = func(uint64) error {
		if reads++; reads == 2 {
			close(arrived)
			<-free
		}
		return nil
	}
	r := newHandRig(t, store, Options{Policy: PolicyLazy})
	r.open()
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: r.id}, Offset: 5 * PageSize, Size: PageSize}
	answer, st := r.raw.Read(nil, in, make([]byte, PageSize))
	if !st.Ok() {
		t.Fatal(st)
	}
	var next sync.WaitGroup
	next.Go(func() { r.read(5, 1, 0) })
	<-arrived
	answer.Done()
	m := r.mem()
	if !m.inflight.has(5) {
		t.Error("a page is not in flight, though it is being read")
	}
	close(free)
	next.Wait()
	if m.inflight.len() != 0 || !m.sess.Load().resident.has(5) {
		t.Errorf("%d in flight, resident: %v", m.inflight.len(), m.sess.Load().resident.has(5))
	}
}

// A mapping of a file that was opened with O_DIRECT goes through the page cache: it is recorded, and
// read(2) of it is not.
func TestDirectMapping(t *testing.T) {
	x := spec{Name: "a", Pages: 1000, Seed: 1}
	b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY|unix.O_DIRECT)
	c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: []uint64{7, 3}, Spec: &x})
	c.do(request{Op: "direct", FD: fd, Off: 100 * PageSize, Len: 16 * PageSize})
	set, err := b.Record(t.Context(), "a", RecordOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]uint64{7, 3}, gfnsOf(set)); d != "" {
		t.Error(d)
	}
	if st := b.stats("a", ""); st.LazyRequests != 3 {
		t.Errorf("%+v", st.Counters)
	}
}
