package fs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/learn"
)

// A learnShelf keeps records in memory.
type learnShelf struct {
	mu     sync.Mutex
	all    map[string][]byte
	broken bool // it keeps nothing
	proved int  // how often it was said that a set has proved itself
}

func (l *learnShelf) LoadLearned(id string) (*learn.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, ok := l.all[id]
	if !ok {
		return nil, nil
	}
	return learn.Parse(text)
}

func (l *learnShelf) SaveLearned(id string, text []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return errFake
	}
	l.all[id] = text
	return nil
}

// learnRig is a server that learns, of one checkpoint "a".
type learnRig struct {
	*handRig
	k     *guestKernel
	store *fakeStore
	shelf *learnShelf
	x     spec
	o     Options
	n     int
}

func newLearnRig(t *testing.T, x spec, o Options) *learnRig {
	l := &learnRig{store: newFakeStore(x), shelf: &learnShelf{all: map[string][]byte{}}, x: x, o: o}
	l.store.onFeed = func(int) error { time.Sleep(time.Millisecond); return nil }
	l.store.onRead = func(uint64) error { time.Sleep(100 * time.Microsecond); return nil }
	l.o.Learned = l.shelf
	l.o.Proved = func(Checkpoint) {
		l.shelf.mu.Lock()
		defer l.shelf.mu.Unlock()
		l.shelf.proved++
	}
	l.serve(t)
	return l
}

// serve begins another server.
func (l *learnRig) serve(t *testing.T) {
	l.handRig = newHandRig(t, l.store, l.o)
	l.k = newGuestKernel()
	l.kernel = l.k
}

// guest is a machine on a clone of its own.
func (l *learnRig) guest() *guest {
	l.n++
	return newGuest(l.handRig, l.k, l.x, fmt.Sprintf("m%d", l.n))
}

func (g *guest) close() {
	g.r.raw.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: g.id}})
}

// restore is a machine that touches pages and runs on for a while.
func (l *learnRig) restore(gfns []uint64) *guest {
	g := l.guest()
	g.open()
	time.Sleep(time.Nanosecond)
	for _, gfn := range gfns {
		g.touch(gfn)
		time.Sleep(20 * time.Microsecond)
	}
	time.Sleep(time.Minute)
	g.close()
	return g
}

// record is what is kept.
func (l *learnRig) record() *learn.Record {
	l.t.Helper()
	r, err := l.shelf.LoadLearned(l.store.specs[0].ID)
	if err != nil || r == nil {
		l.t.Fatalf("the record: %v, %v", r, err)
	}
	return r
}

func (l *learnRig) last() learn.Entry { h := l.record().History; return h[len(h)-1] }

// promote gives the checkpoint the set that has proved itself, as another process would.
func (l *learnRig) promote() {
	l.t.Helper()
	var old *wss.Set
	var err error
	if text := l.x.Files[fileWorkingSet]; text != "" {
		if old, err = wss.Parse(strings.NewReader(text)); err != nil {
			l.t.Fatal(err)
		}
	}
	set, err := l.record().Set(old)
	if err != nil {
		l.t.Fatal(err)
	}
	var text strings.Builder
	if _, err := set.WriteTo(&text); err != nil {
		l.t.Fatal(err)
	}
	l.x.WS = nil
	for _, run := range set.Runs {
		l.x.WS = append(l.x.WS, [2]uint64{run.GFN, run.Count})
	}
	l.x.Files = map[string]string{fileWorkingSet: text.String()}
	l.x.Revision++
	l.store.set(l.x)
	if err := l.Refresh(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	l.shelf.mu.Lock()
	defer l.shelf.mu.Unlock()
	l.shelf.proved = 0
}

// proved says whether a set has proved itself since the last one was set.
func (l *learnRig) proved() bool {
	l.shelf.mu.Lock()
	defer l.shelf.mu.Unlock()
	return l.shelf.proved > 0
}

// breaks makes what is kept from now on fail to be kept, or not.
func (l *learnShelf) breaks(broken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = broken
}

// learnSpec has a set of runs of 16 pages, each second one of those that its guest touches.
func learnSpec(runs int) (x spec, used []uint64) {
	x = spec{Name: "a", Pages: uint64(64 * runs), Seed: 5}
	var text strings.Builder
	fmt.Fprintf(&text, "thaw-working-set 1\npages %d\nwindow 1s\n\n", x.Pages)
	for i := range uint64(runs) {
		if i%2 == 0 {
			x.WS = append(x.WS, [2]uint64{i * 64, 16})
			fmt.Fprintf(&text, "%d 16 %d trace\n", i*64, i*1000)
		}
		used = append(used, slices.Collect(run(i*64, 16))...)
	}
	x.Files = map[string]string{fileWorkingSet: text.String()}
	return x, used
}

// A machine whose set is half of what it uses gets all of it, through a trial against the old one, and what
// is measured is true. Servers begin again in between. Nothing that is held out is pushed.
func TestLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, used := learnSpec(40)
		l := newLearnRig(t, x, Options{})
		for i := range 30 {
			g := l.restore(used)
			for _, fault := range g.k.faults {
				t.Fatal(fault)
			}
			e := l.last()
			if !e.Counted || e.Used+e.CheckedUsed != e.HeldOut+e.Checked || e.Late != 0 {
				t.Fatalf("restore %d: %+v", i, e)
			}
			var read uint64
			for _, n := range g.ino.read {
				read += uint64(n)
			}
			if got := e.Missed + e.HeldOut + e.Checked; got != read {
				t.Fatalf("restore %d: %d reads, %+v", i, read, e)
			}
			if l.proved() {
				l.promote()
			}
			if i%7 == 3 {
				l.serve(t)
			}
		}
		r := l.record()
		q, ok := r.Quality()
		if got := countRuns(l.x.WS); got != uint64(len(used)) || !ok || q.Recall != 1 || q.Precision != 1 {
			t.Errorf("a set of %d pages, want %d; %+v", got, len(used), q)
		}
		t.Logf("after %d restores: %d pages, recall %g, precision %g; %d sets were learned",
			r.Restores, r.BasePages, q.Recall, q.Precision, l.x.Revision)
	})
}

func countRuns(runs [][2]uint64) (n uint64) {
	for _, r := range runs {
		n += r[1]
	}
	return n
}

// All pages are seen that a machine misses, also where READs would have been run ahead of, or brought what
// lies beside their pages.
func TestLearnsOfPagesInSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _ := learnSpec(100)
		x.LocalBlocks, x.Clusters = true, true
		l := newLearnRig(t, x, Options{})
		missed := slices.Collect(run(x.Pages/2+17, 500))
		g := l.restore(append(slices.Collect(run(0, 16)), missed...))
		e := l.last()
		if in := uint64(g.missedIn(missed)); !e.Counted || e.Missed != in || in < 350 {
			t.Errorf("%+v, %d were missed", e, in)
		}
	})
}

// missedIn counts pages that are not of the set.
func (g *guest) missedIn(gfns []uint64) (n int) {
	for _, gfn := range gfns {
		if !g.set[gfn] {
			n++
		}
	}
	return n
}

// A checkpoint without a set gets one.
func TestLearnsFirstSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, used := learnSpec(40)
		x.WS, x.Files = nil, nil
		l := newLearnRig(t, x, Options{})
		for i := 0; !l.proved(); i++ {
			if i == 10 {
				t.Fatalf("no set after %d restores: %+v", i, l.record().History)
			}
			l.restore(used)
		}
		l.promote()
		if got := countRuns(l.x.WS); got != uint64(len(used)) {
			t.Errorf("a set of %d pages, want %d", got, len(used))
		}
		if g := l.restore(used); len(g.ino.read) > len(used)/50 {
			t.Errorf("%d of %d pages are read on demand", len(g.ino.read), len(used))
		}
	})
}

// Restores that were cut short, or that no machine made, teach nothing, and say why.
func TestLearnsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		why string
		o   Options
		do  func(l *learnRig, g *guest, used []uint64)
	}{
		"closed": {whyClosed, Options{}, func(l *learnRig, g *guest, used []uint64) {
			g.touchAll(used[:100])
			g.close()
		}},
		"ended": {whyEnded, Options{}, func(l *learnRig, g *guest, used []uint64) {
			g.touchAll(used[:100])
			l.cancel()
		}},
		"cold": {whyCold, Options{}, func(l *learnRig, g *guest, used []uint64) {
			g.touchAll(used[:100])
			if err := l.Drop(l.t.Context(), "a"); err != nil {
				l.t.Error(err)
			}
		}},
		"capped in bytes": {whyCapped, Options{CapBytes: PageSize, Policy: PolicyWorkingSetFull},
			func(l *learnRig, g *guest, used []uint64) { g.touchAll(used) }},
		"capped in time": {whyCapped, Options{CapTime: time.Microsecond},
			func(l *learnRig, g *guest, used []uint64) { g.touchAll(used) }},
		"small reads": {whyThrough, Options{}, func(l *learnRig, g *guest, _ []uint64) {
			g.touchAll(slices.Collect(run(0, l.x.Pages)))
		}},
		"large reads": {whyThrough, Options{}, func(l *learnRig, g *guest, _ []uint64) {
			g.readLarge(l.x.Pages, 32)
		}},
		"large reads of a part": {whyThrough, Options{}, func(l *learnRig, g *guest, _ []uint64) {
			g.readLarge(l.x.Pages/8, 32)
		}},
		"a look": {whyNobody, Options{}, func(l *learnRig, g *guest, _ []uint64) {
			g.touchAll([]uint64{l.x.Pages - 1, l.x.Pages - 9})
		}},
		"written to": {whyPoisoned, Options{}, func(l *learnRig, g *guest, used []uint64) {
			g.touchAll(used)
			l.memoryOf(l.tree.node(g.id)).poisoned.Store(true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, used := learnSpec(100)
				l := newLearnRig(t, x, c.o)
				g := l.guest()
				g.open()
				time.Sleep(time.Nanosecond)
				c.do(l, g, used)
				time.Sleep(time.Minute)
				e := l.last()
				if e.Counted || e.Decision != "not counted: "+c.why {
					t.Fatalf("%+v, want %q", e, c.why)
				}
				text, err := l.record().Text()
				if err != nil || strings.Contains(string(text), "\np ") {
					t.Errorf("it has learned something: %v\n%.200s", err, text)
				}
			})
		})
	}
}

func (g *guest) touchAll(gfns []uint64) {
	for _, gfn := range gfns {
		g.touch(gfn)
	}
}

// readLarge reads as read(2) does with a large buffer: what is not there of each part of so many pages.
func (g *guest) readLarge(pages, most uint64) {
	for first := uint64(0); first < pages; {
		count := uint64(0)
		g.k.mu.Lock()
		for count < most && first+count < pages && !g.ino.cached[first+count] {
			count++
		}
		g.k.mu.Unlock()
		if count == 0 {
			first++
			continue
		}
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: g.id}, Offset: first * PageSize,
			Size: uint32(count * PageSize)}
		res, st := g.r.raw.Read(nil, in, make([]byte, count*PageSize))
		if !st.Ok() {
			g.r.t.Error(st)
			return
		}
		res.Done()
		first += count
	}
}

// evict is what the kernel does when memory is short.
func (g *guest) evict(gfns ...uint64) {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	for _, gfn := range gfns {
		delete(g.ino.cached, gfn)
	}
}

// A page that the kernel has evicted, and that is asked for again, was neither late nor missed.
func TestLearnsNothingOfEvictedPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, used := learnSpec(40)
		l := newLearnRig(t, x, Options{})
		g := l.guest()
		g.open()
		time.Sleep(time.Second)
		g.touchAll(used)
		g.evict(used...)
		g.touchAll(used)
		time.Sleep(time.Minute)
		if e := l.last(); !e.Counted || e.Late != 0 || e.Missed != uint64(g.missedIn(used)) {
			t.Errorf("%+v, %d were missed", e, g.missedIn(used))
		}
	})
}

// A file whose pages are in the page cache shows nothing: only the first machine on it is watched, however
// many follow. Of machines that are restored at once, on clones of their own, eight are.
func TestLearnsOfColdFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, used := learnSpec(40)
		l := newLearnRig(t, x, Options{})
		g := l.guest()
		for range 3 {
			g.open()
			g.touchAll(used)
			time.Sleep(time.Minute)
		}
		if r := l.record(); r.Restores != 1 {
			t.Errorf("%d restores were watched: %+v", r.Restores, r.History)
		}
		g.close()
		g.close()
		g.close()
		prober := &countProber{n: 1}
		l.opts.Prober = prober
		for want := uint64(1); want < 3; want++ { // all was evicted the second time
			g.open()
			time.Sleep(time.Nanosecond)
			g.touchAll(used)
			time.Sleep(time.Minute)
			g.close()
			if r := l.record(); r.Restores != want || !r.History[want-1].Counted {
				t.Errorf("%d restores were watched, want %d: %+v", r.Restores, want, r.History)
			}
			prober.n = 0
			g.evict(slices.Collect(run(0, x.Pages))...)
		}
		l.opts.Prober = nil
		var all sync.WaitGroup
		for range 20 {
			g := l.guest()
			all.Go(func() {
				g.open()
				time.Sleep(time.Nanosecond)
				g.touchAll(used)
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		if r := l.record(); r.Restores > 2+maxWatched || r.Restores < 3 {
			t.Errorf("%d restores were watched", r.Restores)
		}
		if n := l.watching.Load(); n != 0 {
			t.Errorf("%d are watched still", n)
		}
	})
}

// A countProber says that so many pages are in the page cache.
type countProber struct{ n uint64 }

func (p *countProber) Cached(context.Context, string) (uint64, error) { return p.n, nil }
func (p *countProber) Owns(uint32) bool                               { return false }

// What cannot be kept is lost with the server, and nothing else: the old set stays, and restores go on.
func TestLearnedIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, used := learnSpec(40)
		l := newLearnRig(t, x, Options{})
		l.restore(used)
		l.shelf.breaks(true)
		for range 12 {
			g := l.restore(used)
			if len(g.k.faults) > 0 {
				t.Fatal(g.k.faults)
			}
		}
		if l.proved() {
			t.Error("a set that is not kept is to be set")
		}
		l.serve(t)
		l.shelf.breaks(false)
		l.restore(used)
		if r := l.record(); r.Restores != 2 || r.BasePages != countRuns(x.WS) {
			t.Errorf("%+v", r)
		}
		l.shelf.all[l.store.specs[0].ID] = []byte("nonsense")
		l.serve(t)
		l.restore(used)
		if r := l.record(); r.Restores != 1 {
			t.Errorf("%d restores", r.Restores)
		}
	})
}

// A set that somebody else has set ends the trial, and learning begins anew.
func TestLearnsOfAnotherSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, used := learnSpec(40)
		l := newLearnRig(t, x, Options{})
		for l.n < 4 {
			l.restore(used)
		}
		if l.record().Trial == nil {
			t.Fatal("there is no trial")
		}
		l.x.WS, l.x.Files, l.x.Revision = x.WS[:10], map[string]string{fileWorkingSet: "x"}, 1
		l.store.set(l.x)
		if err := l.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.restore(used)
		r := l.record()
		if r.BasePages != 160 || r.Estimated != 160 || r.Bound() != 320 {
			t.Errorf("%+v", r)
		}
		if !slices.ContainsFunc(r.History, func(e learn.Entry) bool {
			return strings.Contains(e.Decision, "replaced")
		}) {
			t.Errorf("the history does not say so: %+v", r.History)
		}
	})
}

// Random machines, some of which end early or are read through, with random sets, over servers that begin
// again: pages are never wrong, what is held out is not pushed, the set never exceeds its bound, and what
// does not count changes nothing.
func TestLearningLife(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	promoted, late := 0, uint64(0)
	for n := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, n))
			x, used := learnSpec(20 + rnd.IntN(30))
			l := newLearnRig(t, x, Options{Workers: 1 + rnd.IntN(3)})
			l.store.piece = guestPiece
			slow := time.Duration(1 + rnd.IntN(8000))
			l.store.onFeed = func(int) error { time.Sleep(slow * time.Microsecond); return nil }
			for range 40 {
				mine := slices.Clone(used)
				for range rnd.IntN(50) {
					mine = append(mine, rnd.Uint64N(x.Pages))
				}
				rnd.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
				g := l.guest()
				g.open()
				time.Sleep(time.Nanosecond)
				counts := rnd.IntN(4) > 0
				if !counts {
					g.touchAll(mine[:rnd.IntN(len(mine))])
					g.close()
				} else {
					g.touchAll(mine)
				}
				time.Sleep(time.Minute)
				e := l.last()
				if e.Counted != counts {
					t.Fatalf("%+v, want %v", e, counts)
				}
				if st, err := l.Stats("a", fmt.Sprintf("m%d", l.n)); counts && (err != nil || st.Playout == nil ||
					st.Playout.LatePages != e.Late) {
					t.Fatalf("%+v, the plan: %+v, %v", e, st.Playout, err)
				}
				late += e.Late
				if r := l.record(); r.BasePages > max(r.Bound(), countRuns(x.WS)) ||
					r.Trial != nil && r.Trial.Pages > r.Bound() {
					t.Fatalf("%d pages, %+v, at most %d may be", r.BasePages, r.Trial, r.Bound())
				}
				if len(g.k.faults) > 0 {
					t.Fatal(g.k.faults)
				}
				if l.proved() && rnd.IntN(2) == 0 {
					l.promote()
					promoted++
				}
				if rnd.IntN(8) == 0 {
					l.serve(t)
				}
			}
		})
	}
	if promoted == 0 || late == 0 {
		t.Errorf("%d sets were learned, %d pages came late", promoted, late)
	}
}

// A watch that is not there does nothing.
func TestNoWatch(t *testing.T) {
	var w *watch
	w.spoil(whyCold)
	w.begin(time.Now())
	w.of(nil)
	w.read(nil, 0, 1, time.Now())
	if w.on() || w.leavesOut(0) {
		t.Error("it watches")
	}
}
