package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// bubbleClock is the clock of a synctest bubble.
type bubbleClock struct{ origin time.Time }

func (c bubbleClock) Now() time.Duration { return time.Since(c.origin) }

func (c bubbleClock) Until(t time.Duration) { time.Sleep(t - c.Now()) }

func bubbleDisk(name string) *Disk {
	s, err := ParseSpec(name)
	if err != nil {
		panic(err)
	}
	return newDisk(s, bubbleClock{time.Now()})
}

// read reads n bytes at pos and says when they were there.
func read(t *testing.T, d *Disk, pos, n int64) time.Duration {
	src := bytes.NewReader(make([]byte, pos+n))
	if got, err := d.ReadAt(src, make([]byte, n), pos, pos); int64(got) != n || err != nil {
		t.Errorf("read: %d, %v", got, err)
	}
	return d.clock.Now()
}

// TestDiskTakesItsTime: reads end when the model says so, one after another and at the same time.
func TestDiskTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubbleDisk("hdd")
		for i, want := range []time.Duration{20 * ms, 30 * ms, 40 * ms} {
			if got := read(t, d, int64(i)*1e6, 1e6); got != want {
				t.Errorf("read %d was there after %v, want %v", i, got, want)
			}
		}
		if got := read(t, d, 0, 1e6); got != 60*ms {
			t.Errorf("back at the start after %v, want 60ms", got)
		}
		want := Stats{Requests: 4, Seeks: 2, Bytes: 4e6, Waited: 60 * ms}
		if got := d.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
	})
}

func TestDiskQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubbleDisk("s3")
		var wg sync.WaitGroup
		var ends [20]time.Duration
		for i := range ends {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Nanosecond) // an order of arrival
				ends[i] = read(t, d, 0, 1e6)
			})
		}
		wg.Wait()
		for i, got := range ends {
			// The link is busy from 20 ms on; the connections of the first 16 are free again long
			// before the others' bytes could be sent.
			if want := 20*ms + time.Duration(i+1)*10*ms; got != want {
				t.Errorf("request %d was there after %v, want %v", i, got, want)
			}
		}
	})
}

// slowReader is a host that takes its time.
type slowReader struct{ by time.Duration }

func (r slowReader) ReadAt(p []byte, _ int64) (int, error) {
	time.Sleep(r.by)
	return len(p), nil
}

// TestDiskOnASlowHost: the host's time passes beside that of the model, and shows where it is
// longer.
func TestDiskOnASlowHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubbleDisk("nfs")
		for _, by := range []time.Duration{400 * time.Microsecond, 5500 * time.Microsecond} {
			if _, err := d.ReadAt(slowReader{by}, nil, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
		want := Stats{Requests: 2, Waited: 6 * ms, Late: 1, LateBy: 5 * ms}
		if got := d.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
	})
}

// TestDiskPassesErrors: what the host cannot read fails, in the time that the device takes.
func TestDiskPassesErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubbleDisk("hdd")
		n, err := d.ReadAt(bytes.NewReader([]byte("abc")), make([]byte, 10), 1, 1)
		if n != 2 || err != io.EOF || d.clock.Now() < 10*ms {
			t.Errorf("%d, %v after %v", n, err, d.clock.Now())
		}
	})
}

// lay makes a store on a disk whose blobs have the given sizes.
func lay(t *testing.T, name string, sizes map[string]int) *Store {
	t.Helper()
	mem := blobtest.NewMem()
	for name, n := range sizes {
		blobtest.Put(t, mem, name, make([]byte, n))
	}
	s, err := Wrap(t.Context(), mem, bubbleDisk(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStorePlaces: blobs lie one behind another, and what is made later behind them.
func TestStorePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lay(t, "hdd", map[string]int{"packs/2": 100, "packs/1": 8192, "roots/a": 4097})
		whole := func(name string, seeks int64) {
			t.Helper()
			before := s.disk.Stats().Seeks
			blobtest.Get(t, s, name)
			if got := s.disk.Stats().Seeks - before; got != seeks {
				t.Errorf("reading %s made %d seeks, want %d", name, got, seeks)
			}
		}
		whole("packs/1", 1)
		whole("packs/2", 0) // lies behind it
		blobtest.Put(t, s, "packs/3", make([]byte, 10))
		whole("packs/3", 1)
		for name, want := range map[string]int64{
			"packs/1": 0, "packs/2": 8192, "roots/a": 12288, "packs/3": 20480,
		} {
			if got := s.place[name]; got != want {
				t.Errorf("%s lies at %d, want %d", name, got, want)
			}
		}
		if err := s.Remove(t.Context(), "packs/1"); err != nil {
			t.Fatal(err)
		}
		blobtest.Put(t, s, "packs/1", make([]byte, 10))
		whole("packs/1", 1)
		if got := s.place["packs/1"]; got != 24576 {
			t.Errorf("a new blob of an old name lies at %d", got)
		}
	})
}

// TestStoreChargesWhatIsRead: ranges over the end are read, and paid, up to it.
func TestStoreChargesWhatIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lay(t, "hdd", map[string]int{"a": 1000})
		o, err := s.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			off, n, got int64
			err         error
		}{{0, 1000, 1000, nil}, {600, 1000, 400, io.EOF}, {1000, 1, 0, io.EOF}} {
			before := s.disk.Stats().Bytes
			n, err := o.ReadAt(make([]byte, c.n), c.off)
			if int64(n) != c.got || !errors.Is(err, c.err) {
				t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
			}
			if paid := s.disk.Stats().Bytes - before; paid != c.got {
				t.Errorf("%d bytes at %d: %d were charged", c.n, c.off, paid)
			}
		}
	})
}

// fast is a device for tests that are not about time.
var fast = Spec{Name: "fast", Bandwidth: 1e15, Parallel: 4}

func TestStoreSuite(t *testing.T) {
	wrap := func(t *testing.T, inner blob.Store) blob.Store {
		s, err := Wrap(context.Background(), inner, New(fast))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	blobtest.Suite{New: func(t *testing.T) blob.Store { return wrap(t, blobtest.NewMem()) }}.Run(t)
}

func TestMedium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, want := range map[string]blob.Medium{
			"hdd": {Latency: 10 * ms, Parallel: 1},
			"s3":  {Latency: 20 * ms, Parallel: 16},
		} {
			if got := blob.MediumOf(lay(t, name, nil)); got != want {
				t.Errorf("%s: %+v", name, got)
			}
		}
		if got := blob.MediumOf(blobtest.NewMem()); got != (blob.Medium{}) {
			t.Errorf("memory: %+v", got)
		}
	})
}

// BenchmarkDisk reads from devices in real time and tells how far from the model the reads were, on
// average and in the sum of many.
func BenchmarkDisk(b *testing.B) {
	for _, spec := range specs {
		b.Run(spec.Name, func(b *testing.B) {
			d, model := New(spec), NewModel(spec)
			src := bytes.NewReader(make([]byte, 1<<20))
			p := make([]byte, 64<<10)
			rnd := rand.New(rand.NewPCG(1, 1))
			var off, want time.Duration
			begin := d.clock.Now()
			for b.Loop() {
				pos := rnd.Int64N(1 << 19)
				start := d.clock.Now()
				if _, err := d.ReadAt(src, p, pos, pos); err != nil {
					b.Fatal(err)
				}
				v := model.Schedule(start, Request{pos, int64(len(p))})
				off += d.clock.Now() - v.End
				want += v.End - start
			}
			b.ReportMetric(float64(off.Microseconds())/float64(b.N), "us-late/op")
			b.ReportMetric(float64(d.clock.Now()-begin)/float64(want), "took/model")
		})
	}
}
