package fs

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/thawfs/thaw/wss"
)

var (
	interleavings = flag.Int("interleavings", 300, "how many random interleavings TestInterleavings tries")
	interleaveBy  = flag.Uint64("interleave-seed", 0, "the seed of the first of them; 0: a fresh one")
)

// Opens, closes, reads, discards, drops, records, refreshes, removals and evictions at once on one
// image, in random order, against a model of the kernel. After each of them hold:
//
//   - no open has returned before its prefetch landed, or its failure was counted;
//   - nothing was pushed into a session that is over, into an image that is being recorded, or into
//     a discarded page;
//   - a page reads as zeros in a clone that discarded it, until that is closed, and nowhere else;
//   - no record lacks a page that is in the page cache, or has one that was not read;
//   - nothing is left in flight, no image is left open, and no goroutine.
func TestInterleavings(t *testing.T) {
	seed := *interleaveBy
	if seed == 0 {
		seed = rand.Uint64()
	}
	rounds := *interleavings
	if testing.Short() {
		rounds /= 3
	}
	for i := range rounds {
		if !interleave(t, seed+uint64(i)) {
			t.Fatalf("interleaving %d; again with -interleave-seed=%d", i, seed+uint64(i))
		}
	}
}

// A shuffle is one interleaving.
type shuffle struct {
	t     *testing.T
	s     *Server
	k     *modelKernel
	raw   *raw
	store *fakeStore

	// began and ended count what makes an image cold, or other.
	began, ended atomic.Int64
	read         sync.Map // what was read since ever: page numbers
	revision     uint32   // of the checkpoint; changed by one goroutine
}

func interleave(t *testing.T, seed uint64) bool {
	rnd := rand.New(rand.NewPCG(seed, 1))
	x := spec{Name: "a", Pages: 64, Seed: 1, LocalBlocks: rnd.IntN(3) > 0, Clusters: rnd.IntN(2) == 0}
	if rnd.IntN(4) > 0 {
		x.WS = [][2]uint64{{40, 9}, {3, 5}, {20, 6}}
	}
	store := newFakeStore(x)
	store.piece = 4
	fails := rnd.IntN(4) == 0
	store.onFeed = func(int) error {
		pause()
		if fails && rand.IntN(20) == 0 {
			return errFake
		}
		return nil
	}
	store.onRead = func(uint64) error { pause(); return nil }
	store.onOpen = func(string) error { pause(); return nil }
	o := Options{
		Policy: Policy(rnd.IntN(4)), RecordWindow: time.Hour, Workers: 1 + rnd.IntN(2),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if rnd.IntN(3) == 0 {
		o.Fill, o.FillLarge = 1<<30, true
	}
	s := newServer(context.Background(), store, "/nowhere", o.withDefaults(2))
	h := &shuffle{t: t, s: s, store: store, k: newModelKernel(s),
		raw: &raw{fuse.NewDefaultRawFileSystem(), s}}
	s.kernel = h.k
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.goes("pushing", s.pushers.run)
	h.run(seed)
	h.settle()
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	for _, fault := range h.k.faults {
		t.Error(fault)
	}
	return len(h.k.faults) == 0
}

// run has everybody do a few things.
func (h *shuffle) run(seed uint64) {
	var wg sync.WaitGroup
	for i, do := range []struct {
		times int
		what  func(*rand.Rand)
	}{
		{4, h.client(1)}, {4, h.client(2)}, {4, h.client(3)}, {3, h.drop}, {6, h.record},
		{4, h.change}, {2, h.close},
	} {
		rnd := rand.New(rand.NewPCG(seed, uint64(i+2)))
		wg.Go(func() {
			for range 1 + rnd.IntN(do.times) {
				pause()
				do.what(rnd)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(opTimeout):
		panic("deadlock") // which shows all goroutines
	}
}

// A moment is how much had changed when something began.
type moment struct{ began, ended int64 }

func (h *shuffle) moment() moment { return moment{h.began.Load(), h.ended.Load()} }

// changed says whether the image was made cold, or another, since a moment, or was about to be.
func (h *shuffle) changed(since moment) bool {
	return since.began != since.ended || h.began.Load() != since.began
}

// client uses a memory file as a user.
func (h *shuffle) client(uid uint32) func(*rand.Rand) {
	return func(rnd *rand.Rand) {
		name := []string{"", "x", "y"}[rnd.IntN(3)]
		since := h.moment()
		e := h.s.tree.entry("a")
		if e == nil {
			return
		}
		// The kernel knows the directory as long as it knows a file of it.
		dir := h.s.tree.lookup(e.dir())
		defer h.raw.Forget(dir.id, 1)
		id, of, ok := h.lookup(dir.e, name)
		if !ok {
			return
		}
		if h.open(id, of, uid, since) {
			next := walk(rnd, of)
			for range rnd.IntN(24) {
				gfn := next()
				h.read.Store(gfn, true)
				h.k.touch(h.raw, id, gfn)
				if name != "" && rnd.IntN(6) == 0 {
					first := rnd.Uint64N(of.Pages - 4)
					h.k.discard(h.raw, id, first, 1+rnd.Uint64N(4))
				}
			}
			h.raw.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: id}})
			if name != "" { // its owner has it once
				h.k.restored(id)
			}
		}
		h.k.mu.Lock()
		h.k.inodes[id].opens--
		h.k.mu.Unlock()
		if rnd.IntN(3) == 0 {
			if n := h.k.evict(id); n > 0 {
				pause()
				h.raw.Forget(id, uint64(n))
			}
		}
	}
}

// walk gives the pages that a client touches: anywhere, or in one of the orders of the image from some
// position on.
func walk(rnd *rand.Rand, of spec) func() uint64 {
	image := &fakeImage{spec: of, store: newFakeStore()}
	order := image.workingSet()
	if rnd.IntN(2) == 0 || len(order) == 0 {
		order = image.layout()
	}
	if rnd.IntN(3) == 0 {
		return func() uint64 { return rnd.Uint64N(of.Pages) }
	}
	at := rnd.IntN(len(order))
	return func() uint64 {
		gfn := order[at%len(order)]
		at += 1 + rnd.IntN(2)
		return gfn
	}
}

// lookup is the way to a memory file; false when the checkpoint is gone.
func (h *shuffle) lookup(e *entry, clone string) (id uint64, of spec, ok bool) {
	h.store.mu.Lock()
	for _, x := range h.store.specs {
		if x.ID == e.id {
			of, ok = x, true
		}
	}
	h.store.mu.Unlock()
	if !ok {
		return 0, of, false
	}
	want := e.child(fileMemory)
	if clone != "" {
		want = e.cloneChild(clone, fileMemory)
	}
	id = h.s.tree.lookup(want).id
	h.k.lookup(id, of, clone != "")
	return id, of, true
}

// open is open(2). When it returns, and nothing was dropped or replaced meanwhile, what the policy
// names is there.
func (h *shuffle) open(id uint64, of spec, uid uint32, since moment) bool {
	before := h.k.view(id)
	in := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}}
	in.Uid = uid
	st := h.raw.Open(nil, &in, new(fuse.OpenOut))
	after := h.k.view(id)
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	ino := h.k.inodes[id]
	switch {
	case st == fuse.EACCES && ino.clone,
		(st == fuse.ENOENT || st == fuse.EIO) && (h.gone(of) || h.changed(since)):
		return false
	case !st.Ok():
		h.k.fault("open: %v", st)
		return false
	case ino.clone && ino.owner != 0 && ino.owner != uid:
		h.k.fault("user %d has the clone of user %d open", uid, ino.owner)
	case ino.clone:
		ino.owner = uid
	}
	m := h.k.memoryFile(id)
	sess := m.sess.Load()
	if h.changed(since) || before.drops != after.drops ||
		sess.failed.Load() > 0 || sess.epoch.armed && !sess.epoch.spoiled.Load() {
		return true
	}
	for _, gfn := range h.promised(of) {
		if !after.cached[gfn] && !m.hole(gfn, 1) {
			h.k.fault("the open returns without page %d", gfn)
			break
		}
	}
	return true
}

// promised are the pages that the policy brings before the open returns.
func (h *shuffle) promised(of spec) []uint64 {
	switch h.s.opts.Policy {
	case PolicyWorkingSetFull:
		return (&fakeImage{spec: of}).workingSet()
	case PolicyWorkingSet: // a set without times
		feed := (&fakeImage{spec: of, store: h.store}).WorkingSetFeed()
		var gfns []uint64
		for i, d := range newSchedule(feed, nil).frontFirst(minMargin) {
			if d.at == 0 {
				gfns = feed.GFNs(i, gfns)
			}
		}
		return gfns
	case PolicyEager:
		return upTo(of.Pages)
	}
	return nil
}

// gone says whether the store does not have the checkpoint any more.
func (h *shuffle) gone(of spec) bool {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return !slices.ContainsFunc(h.store.specs, func(x spec) bool { return x.ID == of.ID })
}

func (h *shuffle) drop(rnd *rand.Rand) {
	h.began.Add(1)
	defer h.ended.Add(1)
	drop := h.s.Drop
	if rnd.IntN(2) == 0 {
		drop = h.s.StartRecord
	}
	if err := drop(context.Background(), "a"); err != nil && !errors.Is(err, ErrNotFound) {
		h.fault("drop: %v", err)
	}
}

func (h *shuffle) fault(format string, args ...any) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	h.k.fault(format, args...)
}

// record takes a record. What is in the page cache before it is in it.
func (h *shuffle) record(*rand.Rand) {
	since := h.moment()
	e := h.s.tree.entry("a")
	if e == nil {
		return
	}
	cached := map[uint64]bool{}
	for _, m := range e.memories() {
		h.k.mu.Lock()
		if ino := h.k.inodes[m.node]; ino != nil {
			for gfn := range ino.cached {
				cached[gfn] = true
			}
		}
		h.k.mu.Unlock()
	}
	set, err := h.s.Record(context.Background(), "a", RecordOptions{Force: true})
	if err != nil || h.changed(since) || h.s.tree.entry("a") != e {
		return
	}
	h.exact(set, cached)
}

func (h *shuffle) exact(set *wss.Set, cached map[uint64]bool) {
	has := map[uint64]bool{}
	for gfn := range set.GFNs() {
		has[gfn] = true
		if _, ok := h.read.Load(gfn); !ok {
			h.fault("the record has page %d, which nobody read", gfn)
		}
	}
	for gfn := range cached {
		if !has[gfn] {
			h.fault("the record lacks page %d, which is in the page cache", gfn)
		}
	}
}

// change replaces the working set, removes the checkpoint or makes another of its name, and has the
// tree follow.
func (h *shuffle) change(rnd *rand.Rand) {
	h.began.Add(1)
	defer h.ended.Add(1)
	h.store.mu.Lock()
	x := spec{Name: "a", Pages: 64, Seed: 1, LocalBlocks: true}
	if len(h.store.specs) > 0 {
		x = h.store.specs[0]
	}
	h.store.mu.Unlock()
	h.revision++ // never one that was there before
	x.Revision = h.revision
	switch rnd.IntN(4) {
	case 0:
		h.store.set()
	case 1:
		x.Seed, x.ID = x.Seed+1, ""
		h.store.set(x)
	default:
		x.WS = [][2]uint64{{rnd.Uint64N(40), 12}}
		h.store.set(x)
	}
	pause()
	if err := h.s.Refresh(context.Background()); err != nil {
		h.fault("refresh: %v", err)
	}
}

func (h *shuffle) close(rnd *rand.Rand) {
	if rnd.IntN(2) == 0 {
		h.s.CloseIdle()
		return
	}
	err := h.s.Release(context.Background(), "a")
	if err != nil && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrNotFound) {
		h.fault("release: %v", err)
	}
}

// settle ends the server, and looks at what is left.
func (h *shuffle) settle() {
	known := h.s.tree.known()
	for _, e := range known {
		if e.opens != 0 {
			h.fault("%d files are open when all are closed", e.opens)
		}
	}
	h.s.close()
	for _, e := range known {
		for _, m := range e.memories() {
			if n := m.inflight.len(); n > 0 {
				h.fault("%d pages are left in flight", n)
			}
		}
		if e.img.Load() != nil && e.img.Load().users > 0 || len(e.replaced) > 0 {
			h.fault("an image is left in use")
		}
	}
	if n := h.s.demand.outstanding.Load(); n != 0 {
		h.fault("%d READs are outstanding", n)
	}
	if n := h.s.metrics.panics.Load(); n > 0 {
		h.fault("%d panics", n)
	}
	if _, open := h.store.opened("a"); open > 0 {
		h.fault("%d images are left open", open)
	}
}
