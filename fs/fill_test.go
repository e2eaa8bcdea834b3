package fs

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fillSpec is an image of 1024 pages, every eighth of which is zero; the first 256 are its working set.
func fillSpec() spec {
	return spec{Name: "a", Pages: 1024, ZeroEvery: 8, Seed: 3, WS: [][2]uint64{{0, 256}}}
}

// fillRate lets 64 pages come in a second of the fake clock.
const fillRate = 64 * PageSize

func (r *handRig) fillStats() Fill {
	st, err := r.Stats("a", "")
	if err != nil {
		r.t.Fatal(err)
	}
	if st.Fill == nil {
		return Fill{}
	}
	return *st.Fill
}

func (r *handRig) residentPages() uint64 { return r.mem().sess.Load().resident.len() }

// Behind a restore the rest comes at its rate, zero pages too, until all is there.
func TestFill(t *testing.T) {
	for _, policy := range []Policy{PolicyWorkingSet, PolicyWorkingSetFull, PolicyLazy} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := ""
				r := newHandRig(t, newFakeStore(fillSpec()), Options{
					Policy: policy, Fill: fillRate, RecordWindow: time.Second, Prober: allThere{},
					Filled: func(name, clone string, bytes uint64) {
						told += fmt.Sprintf("%s%s %d", name, clone, bytes)
					},
				})
				r.open()
				time.Sleep(5 * time.Second)
				some := r.residentPages()
				if rest := 5*64 + maxPush; some <= 256 && policy != PolicyLazy || some > 256+uint64(rest) {
					t.Errorf("%d pages after five seconds", some)
				}
				if f := r.fillStats(); f.Done || f.Bytes == 0 {
					t.Errorf("after five seconds: %+v", f)
				}
				time.Sleep(time.Minute)
				want := Fill{Bytes: (1024 - 256) * PageSize, Done: true}
				if policy == PolicyLazy {
					want.Bytes = 1024 * PageSize
				}
				if f := r.fillStats(); f != want || r.residentPages() != 1024 {
					t.Errorf("in the end: %+v, %d pages; want %+v", f, r.residentPages(), want)
				}
				r.open() // finds nothing to fill
				time.Sleep(time.Minute)
				if said := fmt.Sprintf("a %d", want.Bytes); told != said {
					t.Errorf("it says %q, not %q", told, said)
				}
				if n := r.metrics.fillBytes.Load(); n != want.Bytes || r.metrics.fills.Load() != 1 {
					t.Errorf("the metrics have %d bytes, %d fills", n, r.metrics.fills.Load())
				}
			})
		})
	}
}

// A fill stops while somebody asks for a page, however long that takes, and goes on when it is quiet.
func TestFillStopsForDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(fillSpec())
		answer := make(chan struct{})
		store.onRead = func(uint64) error { <-answer; return nil }
		store.onFeed = func(int) error { time.Sleep(time.Second); return nil }
		r := newHandRig(t, store, Options{Workers: 1, Fill: 1 << 30, RecordWindow: time.Nanosecond})
		r.open()
		read := make(chan struct{})
		go func() { r.read(1000, 1, 0); close(read) }() // while the first piece is fetched
		time.Sleep(10 * time.Minute)
		if f := r.fillStats(); f.Bytes != 0 {
			t.Errorf("%d bytes were brought beside a READ", f.Bytes)
		}
		close(answer)
		<-read
		time.Sleep(time.Hour)
		if f := r.fillStats(); !f.Done {
			t.Errorf("afterwards: %+v", f)
		}
	})
}

// Machines that ask for a page now and then slow a fill down, and do not stop it.
func TestFillBesideLightLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(fillSpec())
		store.piece = 32
		r := newHandRig(t, store, Options{Fill: 1 << 20, RecordWindow: time.Nanosecond})
		r.open()
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !stop.Load() {
				r.read(1000, 1, 0)
				time.Sleep(fillQuiet / 2)
			}
		}()
		time.Sleep(5 * time.Second)
		if f := r.fillStats(); f.Done || f.Bytes == 0 {
			t.Errorf("after five seconds: %+v", f)
		}
		time.Sleep(2 * time.Minute)
		if f := r.fillStats(); !f.Done {
			t.Errorf("after two minutes: %+v", f)
		}
		stop.Store(true)
		<-done
	})
}

// A fill brings nothing into a recording, and ends when the file is closed, made cold, or recorded.
func TestFillEnds(t *testing.T) {
	for name, end := range map[string]func(*handRig) error{
		"close":  func(r *handRig) error { r.release(); return nil },
		"drop":   func(r *handRig) error { return r.Drop(r.t.Context(), "a") },
		"record": func(r *handRig) error { return r.StartRecord(r.t.Context(), "a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newHandRig(t, newFakeStore(fillSpec()), Options{
					Policy: PolicyLazy, Fill: fillRate, RecordWindow: 10 * time.Second,
				})
				r.open()
				time.Sleep(9 * time.Second)
				if n := r.residentPages(); n != 0 {
					t.Errorf("%d pages were pushed while it was recorded", n)
				}
				time.Sleep(4 * time.Second)
				filled := r.metrics.fillBytes.Load()
				if filled == 0 {
					t.Error("nothing is filled after the window")
				}
				if err := end(r); err != nil {
					t.Fatal(err)
				}
				before := r.metrics.fillBytes.Load()
				time.Sleep(time.Hour)
				if n := r.metrics.fillBytes.Load(); n != before || r.filling.Load() != 0 {
					t.Errorf("%d bytes more, %d bytes are being filled", n-before, r.filling.Load())
				}
				r.open() // again
				time.Sleep(time.Hour)
				if n := r.residentPages(); n != 1024 {
					t.Errorf("%d pages after the next open", n)
				}
			})
		})
	}
}

// What the host cannot hold is not filled, unless the user says so; then its zero pages are left out.
func TestFillLarge(t *testing.T) {
	for _, large := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newHandRig(t, newFakeStore(fillSpec()),
				Options{Fill: 1 << 30, FillLarge: large, RecordWindow: time.Nanosecond})
			r.ram = 1024 * PageSize
			r.open()
			time.Sleep(time.Hour)
			want := uint64(256)
			if large {
				want = 256 + (1024-256)*7/8
			}
			if n := r.residentPages(); n != want {
				t.Errorf("large=%v: %d pages, want %d", large, n, want)
			}
		})
	}
}

// Pages that cannot be read are left out, and then it does not say that all is in.
func TestFillBadPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(fillSpec())
		store.bad = map[uint64]bool{513: true}
		r := newHandRig(t, store, Options{Fill: 1 << 30, RecordWindow: time.Nanosecond})
		r.open()
		time.Sleep(time.Hour)
		if f := r.fillStats(); f.Done || r.residentPages() != 1023 {
			t.Errorf("%+v, %d pages", f, r.residentPages())
		}
	})
}
