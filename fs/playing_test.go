package fs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/thawfs/thaw/index"
)

// timedSpec has a working set of pieces that are wanted every pace, the first at once. A piece is one
// run of fakePiece pages.
func timedSpec(name string, pieces uint64, pace time.Duration) spec {
	x := spec{Name: name, Pages: 2 * pieces * fakePiece, Seed: 5}
	var text strings.Builder
	fmt.Fprintf(&text, "thaw-working-set 1\npages %d\nwindow 10s\n\n", x.Pages)
	for i := range pieces {
		first := (pieces - 1 - i) * 2 * fakePiece // backwards, with gaps
		x.WS = append(x.WS, [2]uint64{first, fakePiece})
		fmt.Fprintf(&text, "%d %d %d trace\n", first, fakePiece, (time.Duration(i) * pace).Microseconds())
	}
	x.Files = map[string]string{fileWorkingSet: text.String()}
	return x
}

// piecePage is page n of piece i of a timedSpec.
func (c *spec) piecePage(i int, n uint64) uint64 { return c.WS[i][0] + n }

// A slowFeed is how long the pieces of a store's feeds take.
func slowFeed(store *fakeStore, took func(piece int) time.Duration) {
	store.onFeed = func(piece int) error {
		time.Sleep(took(piece))
		return nil
	}
}

func always(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

func (r *handRig) playout() *Playout {
	r.t.Helper()
	st, err := r.Stats("a", "")
	if err != nil || st.Playout == nil {
		r.t.Fatalf("no playout: %v", err)
	}
	return st.Playout
}

// mustOpen opens, and says how long that took.
func (r *handRig) mustOpen() time.Duration {
	r.t.Helper()
	begin := time.Now()
	if st := r.open(); !st.Ok() {
		r.t.Fatal(st)
	}
	return time.Since(begin)
}

// The open returns with the first piece there, because the others will come in time; they do, and the
// next open finds all of it.
func TestOpenReturnsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := timedSpec("a", 20, 10*time.Millisecond)
		store := newFakeStore(x)
		slowFeed(store, always(time.Millisecond))
		r := newHandRig(t, store, Options{Workers: 1})
		if took := r.mustOpen(); took != time.Millisecond {
			t.Errorf("the open takes %v", took)
		}
		p := r.playout()
		if p.Done || !p.Timed || p.HeadPages != 256 || p.TailPages != 19*256 || p.Margin != startMargin ||
			p.HeadStartSeconds != 0.001 || p.RateBytesPerSecond != 256*PageSize/0.001 {
			t.Errorf("%+v", p)
		}
		if p.PlannedSlackSeconds == nil || *p.PlannedSlackSeconds != 0.009 {
			t.Errorf("planned slack %v", p.PlannedSlackSeconds)
		}
		if took := r.mustOpen(); took != 0 {
			t.Errorf("an open that joins the tail takes %v", took)
		}
		if r.mem().sess.Load().restored.Load() != 0 {
			t.Error("the set counts as restored in mid-tail")
		}
		time.Sleep(time.Second)
		st, _ := r.Stats("a", "")
		p = st.Playout
		if !p.Done || p.LatePages != 0 || p.RealSlackSeconds == nil || *p.RealSlackSeconds != 0.009 {
			t.Errorf("%+v", p)
		}
		if st.PrefetchedPages != 256 || st.TailPages != 19*256 || st.Prefetches != 1 {
			t.Errorf("%+v", st.Counters)
		}
		if r.mem().sess.Load().restored.Load() == 0 {
			t.Error("the set does not count as restored")
		}
	})
}

// With working-set-full the open waits for all of it.
func TestOpenWaitsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(timedSpec("a", 20, time.Hour/20))
		slowFeed(store, always(time.Millisecond))
		r := newHandRig(t, store, Options{Workers: 1, Policy: PolicyWorkingSetFull})
		if took := r.mustOpen(); took != 20*time.Millisecond {
			t.Errorf("the open takes %v", took)
		}
		p := r.playout()
		if p.HeadPages != 20*256 || p.TailPages != 0 || p.PlannedSlackSeconds != nil {
			t.Errorf("%+v", p)
		}
	})
}

// A cap can only make it earlier.
func TestCapsAndPlayout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(timedSpec("a", 20, 10*time.Microsecond)) // all at once
		slowFeed(store, always(time.Millisecond))
		r := newHandRig(t, store, Options{Workers: 1, CapTime: 4500 * time.Microsecond})
		if took := r.mustOpen(); took != 4500*time.Microsecond {
			t.Errorf("the open takes %v", took)
		}
		r.release()
	})
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(timedSpec("a", 20, 10*time.Millisecond))
		slowFeed(store, always(time.Millisecond))
		r := newHandRig(t, store, Options{Workers: 1, CapTime: time.Second, CapBytes: 1 << 30})
		if took := r.mustOpen(); took != time.Millisecond {
			t.Errorf("with caps that are not reached the open takes %v", took)
		}
	})
}

// A machine that touches its set in another order than recorded finds pages missing: they come on demand,
// and are counted, each once. Pages that are there, and others than the set's, are not late.
func TestLatePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := timedSpec("a", 20, 10*time.Millisecond)
		store := newFakeStore(x)
		slowFeed(store, always(time.Millisecond))
		store.onRead = func(uint64) error { time.Sleep(100 * time.Microsecond); return nil }
		r := newHandRig(t, store, Options{Workers: 1})
		r.mustOpen()
		for piece := 19; piece >= 0; piece-- { // 2 ms together: some have come by then
			r.read(x.piecePage(piece, 3), 1, 0)
		}
		r.read(x.piecePage(19, 3), 1, 0) // evicted, perhaps
		r.read(x.piecePage(0, 0)+300, 1, 0)
		p := r.playout()
		// READs take 0.1 ms each and pieces 1 ms: the pieces from 19 down to 2 are asked for before they come.
		if p.LatePages != 18 {
			t.Errorf("%d pages late", p.LatePages)
		}
		if p.LateSecondsMax != 0.0001 || fmt.Sprintf("%.4f", p.LateSecondsTotal) != "0.0018" {
			t.Errorf("late by %g s, together %g s", p.LateSecondsMax, p.LateSecondsTotal)
		}
		time.Sleep(time.Second)
		st, _ := r.Stats("a", "")
		if !st.Playout.Done || st.TailPages+st.PrefetchedPages+st.Playout.LatePages != 20*256 {
			t.Errorf("%+v, %+v", st.Counters, st.Playout)
		}
		r.read(x.piecePage(10, 100), 1, 0)
		if p := r.playout(); p.LatePages != 18 {
			t.Errorf("a READ of a page that had come is counted: %d", p.LatePages)
		}
	})
}

// shelf keeps lessons in a map.
type shelf struct {
	mu  sync.Mutex
	all map[string]Lesson
	err error
}

func (s *shelf) Load(id string) (Lesson, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id], s.err
}

func (s *shelf) Save(id string, l Lesson) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.all[id] = l
	}
	return s.err
}

// A medium that is ten times slower behind each open: the margin grows with the second restore, the next
// server knows it, and nothing fails where lessons cannot be kept.
func TestMarginIsLearned(t *testing.T) {
	x := timedSpec("a", 20, 3*time.Millisecond)
	restore := func(r *handRig) *Playout {
		r.mustOpen()
		time.Sleep(time.Second)
		p := r.playout()
		r.release()
		if err := r.Drop(r.t.Context(), "a"); err != nil {
			r.t.Error(err)
		}
		return p
	}
	slower := func(piece int) time.Duration {
		if piece > 4 {
			return 10 * time.Millisecond
		}
		return time.Millisecond
	}
	for _, err := range []error{nil, errors.New("no room")} {
		kept := &shelf{all: map[string]Lesson{}, err: err}
		synctest.Test(t, func(t *testing.T) {
			store := newFakeStore(x)
			slowFeed(store, slower)
			r := newHandRig(t, store, Options{Workers: 1, Lessons: kept})
			for i, want := range []float64{startMargin, startMargin, startMargin * growMargin} {
				p := restore(r)
				if p.Margin != want || p.RealSlackSeconds == nil || *p.RealSlackSeconds >= 0 {
					t.Errorf("restore %d: %+v", i, p)
				}
			}
		})
		synctest.Test(t, func(t *testing.T) {
			store := newFakeStore(x)
			slowFeed(store, always(10*time.Microsecond))
			r := newHandRig(t, store, Options{Workers: 1, Lessons: kept})
			want := startMargin
			if err == nil {
				want *= growMargin
			}
			for i, margin := range []float64{want, want, want * shrinkMargin} {
				if p := restore(r); p.Margin != margin {
					t.Errorf("restore %d by the next server: %+v, want %g", i, p, margin)
				}
			}
		})
	}
}

// What ends a tail in the middle: it leaves nothing behind, and the next open brings the rest.
func TestTailIsCut(t *testing.T) {
	for name, cut := range map[string]func(*handRig) error{
		"close":  func(r *handRig) error { r.release(); return nil },
		"drop":   func(r *handRig) error { return r.Drop(r.t.Context(), "a") },
		"record": func(r *handRig) error { return r.StartRecord(r.t.Context(), "a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := timedSpec("a", 20, 10*time.Millisecond)
				store := newFakeStore(x)
				slowFeed(store, always(time.Millisecond))
				r := newHandRig(t, store, Options{Workers: 1, RecordWindow: time.Second})
				r.mustOpen()
				sess := r.mem().sess.Load()
				time.Sleep(4500 * time.Microsecond)
				if err := cut(r); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				l := sess.landing.Load()
				if p := l.report(); !p.Done || l.awaited.len() != 0 || sess.restored.Load() != 0 {
					t.Errorf("%+v, %d awaited, restored: %d", p, l.awaited.len(), sess.restored.Load())
				}
				if n := r.flying.Load(); n != 0 {
					t.Errorf("%d flights", n)
				}
				r.mustOpen()
				time.Sleep(time.Second)
				n := r.mem().sess.Load().resident.len()
				if want := uint64(20 * 256); name != "record" && n != want || name == "record" && n != 0 {
					t.Errorf("%d pages after the next open", n)
				}
			})
		})
	}
}

// An open whose restore is ended before it has landed, by a drop, waits for the next one, also while the
// first one still reads its record.
func TestDropBeforeLanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(timedSpec("a", 20, time.Microsecond)) // all at once
		slowFeed(store, always(time.Millisecond))
		store.onFile = func() { time.Sleep(10 * time.Millisecond) }
		r := newHandRig(t, store, Options{Workers: 1})
		go func() {
			time.Sleep(4500 * time.Microsecond)
			if err := r.Drop(r.t.Context(), "a"); err != nil {
				r.t.Error(err)
			}
		}()
		if took := r.mustOpen(); took != 25*time.Millisecond {
			t.Errorf("the open takes %v", took)
		}
		if n := r.residentPages(); n != 20*256 {
			t.Errorf("%d pages when it returns", n)
		}
	})
}

// Sixteen opens of one image make one restore, and return together; sixteen images play out beside each
// other.
func TestSixteenPlayouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var specs []spec
		for i := range 16 {
			name := "a"
			if i > 0 {
				name = fmt.Sprintf("a%d", i)
			}
			specs = append(specs, timedSpec(name, 20, 10*time.Millisecond))
		}
		store := newFakeStore(specs...)
		slowFeed(store, always(time.Millisecond))
		r := newHandRig(t, store, Options{Workers: 1})
		open := func(name string) {
			begin := time.Now()
			in := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: r.memoryNode(name)}}
			st := r.raw.Open(nil, &in, new(fuse.OpenOut))
			if took := time.Since(begin); !st.Ok() || took != time.Millisecond {
				t.Errorf("%s: %v, in %v", name, st, took)
			}
		}
		var opens sync.WaitGroup
		for _, x := range specs {
			opens.Go(func() { open(x.Name) })
			opens.Go(func() {
				if x.Name != "a" {
					open("a")
				}
			})
		}
		opens.Wait()
		time.Sleep(time.Second)
		for _, x := range specs {
			st, err := r.Stats(x.Name, "")
			if err != nil || st.Prefetches != 1 || st.PrefetchedPages+st.TailPages != 20*256 ||
				st.PrefetchedPages != 256 || !st.Playout.Done {
				t.Errorf("%s: %+v, %+v", x.Name, st.Counters, st.Playout)
			}
		}
	})
}

// A record that cannot be read costs the times: the front half is brought first.
func TestRecordUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(*fakeStore, *spec){
		"none":      func(_ *fakeStore, x *spec) { x.Files = nil },
		"malformed": func(_ *fakeStore, x *spec) { x.Files = map[string]string{fileWorkingSet: "x"} },
		"error":     func(s *fakeStore, _ *spec) { s.fileError = errFake },
		"panic":     func(s *fakeStore, _ *spec) { s.filePanic.Store(true) },
		"access": func(_ *fakeStore, x *spec) {
			x.Files[fileWorkingSet] = strings.ReplaceAll(x.Files[fileWorkingSet], "trace", "access")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := timedSpec("a", 20, time.Hour/20)
				store := newFakeStore()
				spoil(store, &x)
				store.set(x)
				slowFeed(store, always(time.Millisecond))
				r := newHandRig(t, store, Options{Workers: 1})
				want := 10 * time.Millisecond
				if name == "panic" { // nothing is known of the plan: all of it
					want *= 2
				}
				if took := r.mustOpen(); took != want {
					t.Errorf("the open takes %v", took)
				}
				if p := r.playout(); p.Timed {
					t.Errorf("%+v", p)
				}
			})
		})
	}
}

// What the store knows of the times is taken as it is, and the record is not read.
func TestStoreKnowsTimes(t *testing.T) {
	for name, c := range map[string]struct {
		dues func(i int) time.Duration // nil: it knows that there are no times
		want time.Duration
	}{
		"early": {func(i int) time.Duration { return time.Duration(i) * 10 * time.Millisecond }, time.Millisecond},
		"late":  {func(i int) time.Duration { return time.Duration(i) * time.Microsecond }, 20 * time.Millisecond},
		"none":  {nil, 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := timedSpec("a", 20, 5*time.Millisecond)
				x.Dues = []index.Due{}
				for i := range x.WS {
					if c.dues != nil {
						x.Dues = append(x.Dues, index.Due{Pages: fakePiece, At: c.dues(i)})
					}
				}
				store := newFakeStore(x)
				slowFeed(store, always(time.Millisecond))
				store.onFile = func() { t.Error("the record is read") }
				r := newHandRig(t, store, Options{Workers: 1})
				if took := r.mustOpen(); took != c.want {
					t.Errorf("the open takes %v", took)
				}
				if p := r.playout(); p.Timed != (c.dues != nil) {
					t.Errorf("%+v", p)
				}
			})
		})
	}
}

// A record that could not be read once is read again for the next restore, and one that was, not.
func TestRecordReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(timedSpec("a", 20, time.Hour/20))
		slowFeed(store, always(time.Millisecond))
		files := 0
		store.onFile = func() { files++ }
		store.fileError = errFake
		r := newHandRig(t, store, Options{Workers: 1})
		for i, want := range []struct {
			took  time.Duration
			files int
		}{{10 * time.Millisecond, 1}, {10 * time.Millisecond, 2}, {time.Millisecond, 3}, {time.Millisecond, 3}} {
			if i == 2 {
				store.fileError = nil
			}
			took := r.mustOpen()
			if took != want.took || r.playout().Timed != (i >= 2) || files != want.files {
				t.Errorf("restore %d: the open takes %v, timed: %v, the record was read %d times",
					i, took, r.playout().Timed, files)
			}
			time.Sleep(time.Second)
			r.release()
			if err := r.Drop(r.t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// allThere is a prober that finds everything in the page cache.
type allThere struct{}

func (allThere) Owns(uint32) bool { return false }

func (allThere) Cached(context.Context, string) (uint64, error) { return 1 << 40, nil }

// A prober's answer counts for a set that has come as a tail as for one that an open waited for.
func TestSecondOpenAfterTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(timedSpec("a", 20, 10*time.Millisecond))
		slowFeed(store, always(time.Millisecond))
		r := newHandRig(t, store, Options{Workers: 1, Prober: allThere{}})
		r.mustOpen()
		time.Sleep(time.Second)
		r.release()
		if took := r.mustOpen(); took != 0 {
			t.Errorf("the second open takes %v", took)
		}
		if st, _ := r.Stats("a", ""); st.Prefetches != 1 || st.Playout.HeadPages != 256 {
			t.Errorf("%+v, %+v", st.Counters, st.Playout)
		}
	})
}

// Only pages that are missing when the open has returned are late: none that had come before the schedule
// was known, and none that is asked for while the open waits.
func TestNotLate(t *testing.T) {
	x := timedSpec("a", 4, time.Millisecond)
	feed := (&fakeImage{spec: x, store: newFakeStore(x)}).WorkingSetFeed()
	m := &memoryFile{pages: x.Pages}
	l := newLanding(m, feed, PolicyWorkingSet, time.Now(), pace{})
	l.brought(2, feed.GFNs(2, nil), time.Now())
	l.plan(feed, newSchedule(feed, nil), startMargin)
	if l.asked(x.piecePage(1, 7), 1) {
		t.Error("a page is late while the open waits")
	}
	l.land(time.Now())
	if l.asked(x.piecePage(2, 7), 1) || l.asked(x.piecePage(2, 0)+fakePiece, 1) {
		t.Error("a page that has come, or one of no set, is late")
	}
	if !l.asked(x.piecePage(1, 7), 1) || l.asked(x.piecePage(1, 7), 1) {
		t.Error("a page of the tail is not late, or twice")
	}
	l.end(false)
	l.plan(feed, newSchedule(feed, nil), startMargin)
	if l.asked(x.piecePage(1, 8), 1) || l.late.pages.Load() != 1 {
		t.Errorf("a page is late when nothing more will come: %d", l.late.pages.Load())
	}
}
