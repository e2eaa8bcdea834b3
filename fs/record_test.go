package fs

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

func gfnsOf(s *wss.Set) []uint64 { return slices.Collect(s.GFNs()) }

// The reads of a lazy restore are a working set, exact to the page and in their order, clones
// included.
func TestRecord(t *testing.T) {
	x := spec{Name: "a", Pages: 1000, Seed: 1, LocalBlocks: true}
	b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
	c := b.client()
	if _, err := b.Record(t.Context(), "a", RecordOptions{}); !errors.Is(err, ErrNothing) {
		t.Errorf("before any open: %v", err)
	}
	if _, err := b.Record(t.Context(), "nobody", RecordOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	m := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	first := append(scattered(500, 7), upTo(100)...) // a stream among them: not pushed ahead of
	c.do(request{Op: "touch", Map: m, GFNs: first, Spec: &x})
	m = c.mapFile(c.open(b.path("a/clones/y/memory"), unix.O_RDWR), x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{900, 3, 901}, Spec: &x})
	set, err := b.Record(t.Context(), "a", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var want []uint64
	seen := map[uint64]bool{}
	for _, gfn := range append(first, 900, 3, 901) {
		if !seen[gfn] {
			want = append(want, gfn)
		}
		seen[gfn] = true
	}
	if d := cmp.Diff(want, gfnsOf(set)); d != "" {
		t.Error(d)
	}
	if err := set.Validate(x.Pages); err != nil {
		t.Error(err)
	}
	if st := b.stats("a", ""); !st.Recording || st.PushedPages != 0 {
		t.Errorf("%+v", st)
	}
}

// A machine that asks for huge pages is recorded as exactly: the kernel reads 2 MiB and more around each of
// its faults, and that is refused as long as reads are recorded, and answered afterwards.
func TestRecordHugePages(t *testing.T) {
	x := spec{Name: "a", Pages: 8192, Seed: 1}
	b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
	c := b.client()
	huge := func(fd int) int {
		return int(c.do(request{Op: "map", FD: fd, Len: int(x.Pages * PageSize), Prot: unix.PROT_READ,
			Flags: unix.MAP_PRIVATE, Huge: true}).N)
	}
	m := huge(c.open(b.path("a/memory"), unix.O_RDONLY))
	want := append(scattered(x.Pages, 61), 5, 6, 7, 8, 4000, 4001)
	c.do(request{Op: "touch", Map: m, GFNs: want, Spec: &x})
	set, err := b.Record(t.Context(), "a", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	for _, gfn := range want {
		seen[gfn] = true
	}
	if n := set.Pages(); n != uint64(len(seen)) {
		t.Errorf("%d pages are recorded of %d that were touched", n, len(seen))
	}
	for gfn := range set.GFNs() {
		if !seen[gfn] {
			t.Errorf("page %d was not touched", gfn)
		}
	}
	if st := b.stats("a", ""); st.Errors != 0 || st.LazyPages != uint64(len(seen)) {
		t.Errorf("%+v", st.Counters)
	}
	// All of it can be read, and is right.
	c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
}

// A copy of an image that is being recorded is slowed for its first pages only, and gets the right bytes;
// so does one that bypasses the page cache.
func TestRecordCopies(t *testing.T) {
	x := spec{Name: "a", Pages: 8192, Seed: 1}
	b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
	c := b.client()
	c.do(request{Op: "readall", FD: c.open(b.path("a/memory"), unix.O_RDONLY), Len: 128 << 10, Spec: &x})
	if st := b.stats("a", ""); st.LazyRequests > 3*triedPages+x.Pages/16 || st.Errors != 0 {
		t.Errorf("%d READs for %d pages, %d errors", st.LazyRequests, x.Pages, st.Errors)
	}
	fd := c.open(b.path("a/clones/d/memory"), unix.O_RDONLY|unix.O_DIRECT)
	if n := len(c.do(request{Op: "pread", FD: fd, Len: 128 << 10}).Data); n != 128<<10 {
		t.Errorf("a read past the page cache gave %d bytes", n)
	}
}

// A record of an image that was prefetched is refused; begun anew, it is exact, whatever the
// policy.
func TestRecordAnew(t *testing.T) {
	x := wsSpec()
	x.LocalBlocks = true
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyEager, RecordWindow: time.Hour})
	c := b.client()
	m := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{1}, Spec: &x})
	if _, err := b.Record(t.Context(), "a", RecordOptions{}); !errors.Is(err, ErrNotCold) {
		t.Errorf("after a prefetch: %v", err)
	}
	if err := b.StartRecord(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	m = c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	want := scattered(x.Pages, 13)
	c.do(request{Op: "touch", Map: m, GFNs: want, Spec: &x})
	set, err := b.Record(t.Context(), "a", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, gfnsOf(set)); d != "" {
		t.Error(d)
	}
}

// What is read in the window is the record; a push in it spoils it, one after it does not.
func TestEpochWindow(t *testing.T) {
	at := func(p *epoch, ms int) time.Time { return p.base.Add(time.Duration(ms) * time.Millisecond) }
	p := newEpoch(100, time.Second, false, true)
	if !p.exclusive(at(p, 50)) {
		t.Error("pushes are allowed before the window")
	}
	p.start(at(p, 100))
	p.start(at(p, 900))
	by := source{1, 1}
	p.read(by, 5, 2, false, at(p, 1000))
	p.read(by, 5, 1, false, at(p, 1050))
	if !p.exclusive(at(p, 1099)) || p.exclusive(at(p, 1100)) {
		t.Error("the window is not from 100 ms to 1100 ms")
	}
	p.read(by, 9, 1, false, at(p, 1100))
	p.spoil(at(p, 1100))
	if err := p.recorded(at(p, 5000)); err != nil {
		t.Fatal(err)
	}
	set := p.set(p.procs.all(), at(p, 5000))
	if d := cmp.Diff([]uint64{5, 6}, gfnsOf(set)); d != "" || set.Window != time.Second {
		t.Error(set.Window, d)
	}
	for _, ms := range []int{50, 150} {
		p := newEpoch(100, time.Second, true, true)
		if ms > 100 {
			p.start(at(p, 100))
		}
		p.spoil(at(p, ms))
		p.start(at(p, 100))
		p.read(by, 5, 1, false, at(p, 200))
		if err := p.recorded(at(p, 5000)); !errors.Is(err, ErrNotCold) || p.exclusive(at(p, 200)) {
			t.Errorf("spoiled at %d ms: %v", ms, err)
		}
	}
}

// After the window nothing is recorded, and pushing begins.
func TestRecordWindow(t *testing.T) {
	x := spec{Name: "a", Pages: 4096, Seed: 1, LocalBlocks: true}
	b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Nanosecond})
	c := b.client()
	m := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{100}, Spec: &x})
	if _, err := b.Record(t.Context(), "a", RecordOptions{}); !errors.Is(err, ErrNothing) {
		t.Errorf("record: %v", err)
	}
	eventually(t, "the block of page 100 is pushed", func() bool {
		return b.stats("a", "").PushedPages == 15
	})
}

// Demanded pages bring the block they were stored in; so do zero pages their zero neighbours.
func TestLocality(t *testing.T) {
	x := spec{Name: "a", Pages: 4096, Seed: 1, LocalBlocks: true, ZeroEvery: 2, WS: [][2]uint64{{0, 1}}}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyLazy})
	c := b.client()
	m := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{5}, Spec: &x})
	eventually(t, "15 neighbours", func() bool { return b.stats("a", "").PushedPages == 15 })
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{5 + 256, 5 + 15*256}, Spec: &x})
	if st := b.stats("a", ""); st.LazyPages != 1 {
		t.Errorf("%d lazy pages, want 1", st.LazyPages)
	}
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{34}, Spec: &x})
	eventually(t, "7 zero pages", func() bool { return b.stats("a", "").PushedPages == 15+7 })
	c.do(request{Op: "touch", Map: m, GFNs: []uint64{32, 36, 38, 40, 42, 44, 46}, Spec: &x})
	if st := b.stats("a", ""); st.LazyPages != 2 {
		t.Errorf("%d lazy pages, want 2", st.LazyPages)
	}
	if _, err := b.Record(t.Context(), "a", RecordOptions{}); !errors.Is(err, ErrNotCold) {
		t.Errorf("record: %v", err)
	}
}

// Without a trace layout neighbours are not worth pushing.
func TestNoLocality(t *testing.T) {
	x := spec{Name: "a", Pages: 4096, Seed: 1, WS: [][2]uint64{{0, 1}}}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyLazy})
	c := b.client()
	m := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: scattered(4096, 100), Spec: &x})
	if st := b.stats("a", ""); st.PushedPages != 0 {
		t.Errorf("%+v", st.Counters)
	}
	if _, err := b.Record(t.Context(), "a", RecordOptions{}); err != nil {
		t.Errorf("record: %v", err)
	}
}

// A sequential reader by single faults is pushed ahead of, and several are, each for itself.
func TestStreamsOfFaults(t *testing.T) {
	x := spec{Name: "a", Pages: 8192, Seed: 1, WS: [][2]uint64{{0, 1}}}
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyLazy})
	c := b.client()
	m := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	var gfns []uint64
	for i := range uint64(2048) {
		for s := range uint64(4) {
			gfns = append(gfns, s*2048+i)
		}
	}
	c.do(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x})
	st := b.stats("a", "")
	// How far the pushers get ahead depends on the machine; TestStreams has the figures.
	if st.PushedPages+st.LazyPages < 8192 || st.PushedPages == 0 {
		t.Errorf("%+v", st.Counters)
	}
}

// Drop makes an image cold, a running machine's too.
func TestDrop(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(100), Spec: &x})
	c.do(request{Op: "poke", Map: m, Off: PageSize + 77, Value: 42})
	clone := c.open(b.path("a/clones/x/memory"), unix.O_RDWR)
	if err := b.Drop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{fd, clone} {
		if got := c.do(request{Op: "cached", FD: fd}).N; got != 0 {
			t.Errorf("%d pages in the page cache", got)
		}
	}
	if st := b.stats("a", ""); st.Counters != (Counters{}) || st.StallSeconds != 0 {
		t.Errorf("%+v", st)
	}
	if got := c.do(request{Op: "peek", Map: m, Off: PageSize + 77}).N; got != 42 {
		t.Errorf("the machine's own copy is %d", got)
	}
	c.do(request{Op: "touch", Map: m, GFNs: scattered(x.Pages, 50), Spec: &x})
	if st := b.stats("a", ""); st.LazyPages != 82 {
		t.Errorf("%+v", st.Counters)
	}
	if err := b.Drop(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("drop of nobody: %v", err)
	}
	c.open(b.path("a/memory"), unix.O_RDONLY)
	if st := b.stats("a", ""); st.Prefetches != 1 {
		t.Errorf("%+v", st.Counters)
	}
}
