package fs

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// guestPiece is the number of pages of a piece in the tests of guests.
const guestPiece = 16

// guestSpec has a working set of some pieces, and as many pages beside it, which are wanted in their order,
// the last at the end of span.
func guestSpec(rnd *rand.Rand, name string, pieces int, span time.Duration) spec {
	x := spec{Name: name, Pages: uint64(2 * pieces * guestPiece), Seed: rnd.Uint64()}
	var text strings.Builder
	fmt.Fprintf(&text, "thaw-working-set 1\npages %d\nwindow %v\n\n", x.Pages, span)
	for i, place := range rnd.Perm(pieces) {
		first := uint64(2 * place * guestPiece)
		x.WS = append(x.WS, [2]uint64{first, guestPiece})
		at := time.Duration(i) * span / time.Duration(pieces)
		fmt.Fprintf(&text, "%d %d %d trace\n", first, guestPiece, at.Microseconds())
	}
	x.Files = map[string]string{fileWorkingSet: text.String()}
	return x
}

// A guestKernel knows what each machine has in its page cache, and which of it was read. Guarded by mu.
type guestKernel struct {
	mu     sync.Mutex
	inodes map[uint64]*guestInode
	faults []string
}

type guestInode struct {
	of              spec
	cached, reading map[uint64]bool
	pushed, read    map[uint64]int
}

func newGuestKernel() *guestKernel { return &guestKernel{inodes: map[uint64]*guestInode{}} }

func (k *guestKernel) InodeNotify(uint64, int64, int64) fuse.Status { return fuse.OK }
func (k *guestKernel) EntryNotify(uint64, string) fuse.Status       { return fuse.OK }

func (k *guestKernel) InodeNotifyStoreCache(id uint64, off int64, data []byte) fuse.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	ino := k.inodes[id]
	for i := 0; i < len(data); i += PageSize {
		gfn := uint64(off+int64(i)) / PageSize
		if ino.reading[gfn] {
			k.faults = append(k.faults, fmt.Sprintf("page %d is pushed while it is read", gfn))
		}
		if err := ino.of.check(gfn, data[i:i+PageSize]); err != nil {
			k.faults = append(k.faults, err.Error())
		}
		ino.cached[gfn] = true
		ino.pushed[gfn]++
	}
	return fuse.OK
}

// A guest is one machine on a memory file.
type guest struct {
	r   *handRig
	k   *guestKernel
	ino *guestInode
	id  uint64
	// late counts pages of its set that it asked for before they were pushed.
	late uint64
	set  map[uint64]bool
}

// newGuest looks up the memory of a checkpoint, or of a clone of it.
func newGuest(r *handRig, k *guestKernel, of spec, clone string) *guest {
	e := r.tree.entry(of.Name)
	n := e.child(fileMemory)
	if clone != "" {
		n = e.cloneChild(clone, fileMemory)
	}
	g := &guest{r: r, k: k, id: r.tree.lookup(n).id, set: map[uint64]bool{}, ino: &guestInode{of: of,
		cached: map[uint64]bool{}, reading: map[uint64]bool{}, pushed: map[uint64]int{}, read: map[uint64]int{}}}
	for _, run := range of.WS {
		for gfn := run[0]; gfn < run[0]+run[1]; gfn++ {
			g.set[gfn] = true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inodes[g.id] = g.ino
	return g
}

func (g *guest) open() {
	st := g.r.raw.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: g.id}}, new(fuse.OpenOut))
	if !st.Ok() {
		g.r.t.Error(st)
	}
}

// touch is a page fault.
func (g *guest) touch(gfn uint64) {
	g.k.mu.Lock()
	there := g.ino.cached[gfn]
	if !there {
		g.ino.reading[gfn] = true
		g.ino.read[gfn]++
	}
	g.k.mu.Unlock()
	if there {
		return
	}
	if g.set[gfn] {
		g.late++
	}
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: g.id}, Offset: gfn * PageSize, Size: PageSize}
	buf := make([]byte, PageSize)
	res, st := g.r.raw.Read(nil, in, buf)
	if !st.Ok() {
		g.r.t.Errorf("page %d: %v", gfn, st)
		return
	}
	if err := g.ino.of.check(gfn, buf); err != nil {
		g.r.t.Error(err)
	}
	g.k.mu.Lock()
	delete(g.ino.reading, gfn)
	g.ino.cached[gfn] = true
	g.k.mu.Unlock()
	res.Done()
}

// order is what a guest touches, half of its memory: its set in the order in which it was recorded, or in
// another, and others.
func (g *guest) order(rnd *rand.Rand, recorded bool) (gfns []uint64) {
	if recorded {
		for _, run := range g.ino.of.WS {
			gfns = append(gfns, run[0]+rnd.Uint64N(run[1]))
		}
		return gfns
	}
	for _, gfn := range rnd.Perm(int(g.ino.of.Pages))[:g.ino.of.Pages/2] {
		gfns = append(gfns, uint64(gfn))
	}
	return gfns
}

// run touches pages, one after another, at a pace of its own. Its moments are never those of a piece.
func (g *guest) run(rnd *rand.Rand, gfns []uint64, pace time.Duration) {
	time.Sleep(time.Nanosecond)
	for _, gfn := range gfns {
		g.touch(gfn)
		time.Sleep(time.Duration(rnd.Int64N(int64(2*pace)+1)) / 1000 * 1000)
	}
}

// check compares what the server counted with what happened: every page of the set came once, pushed or read;
// late are those that the guest asked for.
func (g *guest) check(what string, p *Playout, c Counters) {
	t := g.r.t
	t.Helper()
	var pushed uint64
	for gfn := range g.set {
		if n := g.ino.pushed[gfn] + g.ino.read[gfn]; n != 1 {
			t.Fatalf("%s: page %d came %d times", what, gfn, n)
		}
		pushed += uint64(g.ino.pushed[gfn])
	}
	if p == nil || !p.Done || p.LatePages != g.late {
		t.Fatalf("%s: %+v, the guest asked for %d pages of the set", what, p, g.late)
	}
	if n := c.PrefetchedPages + c.TailPages; n != pushed {
		t.Fatalf("%s: %d pages pushed, %d counted", what, pushed, n)
	}
	for _, fault := range g.k.faults {
		t.Fatalf("%s: %s", what, fault)
	}
}

// Guests that touch what they were recorded to touch in another order, at another pace, and half of it never,
// while the medium may become ten times slower at any piece: they go on, each page of their set comes once,
// nothing is pushed into a page that is being read, and late pages are counted, each once.
func TestGuestOfAnotherMind(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	late, none := 0, 0
	for n := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, n))
			pieces := 2 + rnd.IntN(40)
			x := guestSpec(rnd, "a", pieces, time.Duration(1+rnd.IntN(200))*time.Millisecond)
			store := newFakeStore(x)
			store.piece = guestPiece
			slow := rnd.IntN(2 * pieces)
			var slower atomic.Int64
			slower.Store(1)
			took := time.Duration(1+rnd.IntN(3000)) * time.Microsecond
			store.onFeed = func(piece int) error {
				if piece == slow {
					slower.Store(10)
				}
				time.Sleep(time.Duration(slower.Load()) * took)
				return nil
			}
			store.onRead = func(uint64) error {
				time.Sleep(time.Duration(slower.Load()) * 100 * time.Microsecond)
				return nil
			}
			r := newHandRig(t, store, Options{Workers: 1 + rnd.IntN(3)})
			k := newGuestKernel()
			r.kernel = k
			g := newGuest(r, k, x, "")
			g.open()
			g.run(rnd, g.order(rnd, rnd.IntN(3) == 0), time.Duration(rnd.IntN(2000))*time.Microsecond)
			time.Sleep(time.Minute)
			st, err := r.Stats("a", "")
			if err != nil {
				t.Fatal(err)
			}
			g.check(fmt.Sprintf("guest %d", n), st.Playout, st.Counters)
			if late++; g.late == 0 {
				late, none = late-1, none+1
			}
		})
	}
	if late < 5 || none < 5 {
		t.Errorf("%d guests had late pages, %d had none", late, none)
	}
}

// A disk that is ten times slower from the middle of each restore on, by a server that knows nothing but the
// lessons: the guest goes on, its late pages are counted, and the margin grows until they are few.
func TestDiskSlowerInMidRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(1, 1))
		const pieces = 40
		x := guestSpec(rnd, "a", pieces, 2*pieces*time.Millisecond)
		store := newFakeStore(x)
		store.piece = guestPiece
		store.onFeed = func(piece int) error {
			time.Sleep(time.Millisecond)
			if piece >= pieces/2 {
				time.Sleep(9 * time.Millisecond)
			}
			return nil
		}
		store.onRead = func(uint64) error { time.Sleep(time.Millisecond); return nil }
		kept := &shelf{all: map[string]Lesson{}}
		var heads, lates []uint64
		for i := range 10 {
			r := newHandRig(t, store, Options{Workers: 1, Lessons: kept})
			k := newGuestKernel()
			r.kernel = k
			g := newGuest(r, k, x, "")
			g.open()
			g.run(rnd, g.order(rnd, true), 2*time.Millisecond)
			time.Sleep(time.Minute)
			st, err := r.Stats("a", "")
			if err != nil {
				t.Fatal(err)
			}
			g.check(fmt.Sprintf("restore %d", i), st.Playout, st.Counters)
			want := []float64{startMargin, startMargin, startMargin * growMargin}
			if i < len(want) && st.Playout.Margin != want[i] {
				t.Errorf("restore %d: margin %g, want %g", i, st.Playout.Margin, want[i])
			}
			heads, lates = append(heads, st.Playout.HeadPages), append(lates, st.Playout.LatePages)
		}
		if lates[0] == 0 || heads[9] <= heads[0] || lates[9] >= lates[0] {
			t.Errorf("the heads were %d pages, %d pages came late", heads, lates)
		}
	})
}

// Sixteen machines on one image and one on each of sixteen images are restored at once: each gets on, and
// all of them together use a bounded number of buffers.
func TestManyGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(2, 2))
		var specs []spec
		for i := range 16 {
			specs = append(specs, guestSpec(rnd, fmt.Sprintf("a%d", i), 20, 100*time.Millisecond))
		}
		specs[0].Name = "a"
		store := newFakeStore(specs...)
		store.piece = guestPiece
		store.onRead = func(uint64) error { time.Sleep(100 * time.Microsecond); return nil }
		r := newHandRig(t, store, Options{Workers: 4})
		used := 0
		store.onFeed = func(int) error {
			n := len(r.pieces.free)
			if n > maxPieces {
				t.Errorf("%d buffers", n)
			}
			store.mu.Lock()
			used = max(used, n)
			store.mu.Unlock()
			time.Sleep(time.Millisecond)
			return nil
		}
		k := newGuestKernel()
		r.kernel = k
		var guests []*guest
		for i, x := range specs {
			guests = append(guests, newGuest(r, k, x, ""), newGuest(r, k, specs[0], fmt.Sprintf("m%d", i)))
		}
		var all sync.WaitGroup
		for i, g := range guests {
			all.Go(func() {
				rnd := rand.New(rand.NewPCG(3, uint64(i)))
				g.open()
				g.run(rnd, g.order(rnd, i%4 < 2), time.Millisecond)
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		for i, g := range guests {
			clone := ""
			if i%2 == 1 {
				clone = fmt.Sprintf("m%d", i/2)
			}
			st, err := r.Stats(g.ino.of.Name, clone)
			if err != nil {
				t.Fatal(err)
			}
			if g.ino.of.Name == "a" && clone == "" { // with its clones
				continue
			}
			g.check(fmt.Sprintf("%s %s", g.ino.of.Name, clone), st.Playout, st.Counters)
		}
		if used != maxPieces || len(r.pieces.free) != 0 {
			t.Errorf("%d buffers were used at once, %d are left", used, len(r.pieces.free))
		}
	})
}

// A busyKernel takes its time for each push, and counts how many go on at once.
type busyKernel struct {
	mu        sync.Mutex
	took      func(page uint64) time.Duration
	now, most int // pushes that go on, and the most of them since most was set to 0
	pages     uint64
}

func (k *busyKernel) InodeNotify(uint64, int64, int64) fuse.Status { return fuse.OK }
func (k *busyKernel) EntryNotify(uint64, string) fuse.Status       { return fuse.OK }

func (k *busyKernel) InodeNotifyStoreCache(_ uint64, off int64, data []byte) fuse.Status {
	k.mu.Lock()
	k.now++
	k.most = max(k.most, k.now)
	k.mu.Unlock()
	time.Sleep(k.took(uint64(off) / PageSize))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now--
	k.pages += uint64(len(data)) / PageSize
	return fuse.OK
}

// Behind the opens' return one goroutine at a time pushes, if all comes in time so, and all of them do if
// not, or if nobody knows. One that is held up does not hold up the others.
func TestTailAlone(t *testing.T) {
	const pieces = 40
	for name, c := range map[string]struct {
		pace time.Duration // of the pieces' touches; 0: unknown
		held bool          // the 6th piece takes a second
		most int           // pushes at once in the tail
		took time.Duration // all of it, at most
	}{
		"far ahead": {20 * time.Millisecond, false, 1, pieces * time.Millisecond},
		"tight":     {700 * time.Microsecond, false, 2, pieces * 600 * time.Microsecond},
		"untimed":   {0, false, 2, pieces * 600 * time.Microsecond},
		"held up":   {20 * time.Millisecond, true, 2, time.Second + 20*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := timedSpec("a", pieces, c.pace)
				if c.pace == 0 {
					x.Files = nil
				}
				k := &busyKernel{took: func(page uint64) time.Duration {
					if c.held && page == x.piecePage(6, 0) {
						return time.Second
					}
					return time.Millisecond
				}}
				r := newHandRig(t, newFakeStore(x), Options{Workers: 2})
				r.kernel = k
				begin := time.Now()
				r.mustOpen()
				time.Sleep(2500 * time.Microsecond) // what had begun by then is over
				k.mu.Lock()
				k.most = 0
				k.mu.Unlock()
				if p := r.playout(); p.Done || p.TailPages == 0 {
					t.Fatalf("there is no tail: %+v", p)
				}
				for !r.playout().Done {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(begin); k.most != c.most || k.pages != pieces*fakePiece ||
					took > c.took+5*time.Millisecond {
					t.Errorf("%d at once, %d pages in %v", k.most, k.pages, took)
				}
			})
		})
	}
}
