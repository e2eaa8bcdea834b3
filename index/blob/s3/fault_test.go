package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/s3"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/s3fake"
)

// faults are the ways in which a request for a range goes wrong and another attempt does not.
var faults = map[string]s3fake.Fault{
	"500":           {Status: 500, Code: "InternalError"},
	"502":           {Status: 502},
	"503":           {Status: 503, Code: "SlowDown"},
	"429":           {Status: 429, Code: "TooManyRequests"},
	"408":           {Status: 400, Code: "RequestTimeout"},
	"no connection": {Drop: true},
	"hangs":         {Hang: true},
	"slow":          {Delay: 50 * time.Millisecond},
	"cut at once":   {Cut: true},
	"cut":           {Cut: true, CutAt: 1000},
	"stalls":        {Cut: true, CutAt: 1000, Stall: true},
	"wrong range":   {Shift: 1},
	"range ignored": {Whole: true},
}

// on applies a fault to the n-th request of a kind, and to those after it for as long as there are times.
func on(kind s3fake.Kind, times int, f s3fake.Fault) s3fake.Plan {
	return func(r s3fake.Request) s3fake.Fault {
		if r.Kind != kind || times == 0 {
			return s3fake.Fault{}
		}
		times--
		return f
	}
}

// stored opens a blob of random bytes in a service of a test.
func stored(t *testing.T, c s3.Config) (*s3.Store, blob.Object, []byte) {
	t.Helper()
	s := open(t, c)
	data := noise(300_000)
	blobtest.Put(t, s, "a", data)
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return s, o, data
}

// TestReadsGoOn: a read gets the right bytes whatever happens to its first two attempts.
func TestReadsGoOn(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := s3fake.Start(t)
			c := config(server)
			c.Limits = quick()
			c.Limits.Tail = 10
			s, o, data := stored(t, c)
			server.SetPlan(on(s3fake.Get, 2, f))
			got := make([]byte, 100_000)
			if n, err := o.ReadAt(got, 100_000); n != len(got) || err != nil ||
				!bytes.Equal(got, data[100_000:200_000]) {
				t.Errorf("read: %d, %v", n, err)
			}
			server.SetPlan(on(s3fake.Get, 2, f))
			again, err := s.Open(t.Context(), "a")
			if err != nil || again.Size() != int64(len(data)) {
				t.Fatalf("open: %v", err)
			}
			if _, err := again.ReadAt(got[:10], int64(len(data)-10)); err != nil ||
				!bytes.Equal(got[:10], data[len(data)-10:]) {
				t.Errorf("end: %v", err)
			}
		})
	}
}

// TestReadsEnd: a read from a service that never gets better fails within its deadline.
func TestReadsEnd(t *testing.T) {
	for name, f := range faults {
		if name == "slow" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := s3fake.Start(t)
			c := config(server)
			c.Limits = quick()
			c.Limits.Read, c.Limits.Tail = 200*time.Millisecond, 10
			s, o, data := stored(t, c)
			if name == "cut" || name == "stalls" {
				// A service that sends some bytes each time is slow, and not dead.
				f.CutAt = 0
			}
			server.SetPlan(on(s3fake.Get, -1, f))
			got := make([]byte, 1000)
			if n, err := o.ReadAt(got, 0); err == nil || errors.Is(err, io.EOF) || errors.Is(err, blob.ErrNotFound) {
				t.Errorf("read: %d, %v", n, err)
			}
			if _, err := s.Open(t.Context(), "a"); name != "wrong range" && name != "range ignored" &&
				(err == nil || errors.Is(err, blob.ErrNotFound)) {
				t.Errorf("open: %v", err)
			}
			server.SetPlan(nil)
			if n, err := o.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, data[:1000]) {
				t.Errorf("afterwards: %d, %v", n, err)
			}
		})
	}
}

// TestReadsKeepWhatTheyHave: an answer that is cut is continued, and not begun again.
func TestReadsKeepWhatTheyHave(t *testing.T) {
	server := s3fake.Start(t)
	c := config(server)
	c.Limits = quick()
	c.Limits.Tail = 10
	_, o, data := stored(t, c)
	server.SetPlan(on(s3fake.Get, -1, s3fake.Fault{Cut: true, CutAt: 50_000}))
	server.Counts()
	got := make([]byte, 240_000)
	if n, err := o.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, data[:len(got)]) {
		t.Errorf("%d, %v", n, err)
	}
	if n := server.Counts()[s3fake.Get]; n != 5 {
		t.Errorf("%d requests", n)
	}
}

// TestRefusedReads: what another attempt does not change is not asked for again.
func TestRefusedReads(t *testing.T) {
	server := s3fake.Start(t)
	c := config(server)
	c.Limits.Tail = 10
	_, o, _ := stored(t, c)
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusPreconditionFailed} {
		server.SetPlan(on(s3fake.Get, -1, s3fake.Fault{Status: status, Code: http.StatusText(status)}))
		server.Counts()
		if _, err := o.ReadAt(make([]byte, 10), 0); err == nil {
			t.Errorf("%d: no error", status)
		}
		if n := server.Counts()[s3fake.Get]; n != 1 {
			t.Errorf("%d: %d requests", status, n)
		}
	}
}

// TestWritesGoOn: a blob is there once, and whole, whatever happens to an attempt of any of its requests.
// Answers that are lost are the hard ones: the next attempt finds its own blob.
func TestWritesGoOn(t *testing.T) {
	lost := map[string]s3fake.Fault{
		"answer lost":       {After: true},
		"500 when done":     {After: true, Status: 500, Code: "InternalError"},
		"500":               {Status: 500, Code: "InternalError"},
		"503":               {Status: 503, Code: "SlowDown"},
		"no connection":     {Drop: true},
		"hangs":             {Hang: true},
		"conflict":          {Status: 409, Code: "ConditionalRequestConflict"},
		"conflict and done": {After: true, Status: 409, Code: "ConditionalRequestConflict"},
	}
	kinds := []s3fake.Kind{s3fake.Put, s3fake.Begin, s3fake.Part, s3fake.Complete, s3fake.Head}
	for name, f := range lost {
		for _, kind := range kinds {
			conflict := f.Status == 409
			if conflict && kind != s3fake.Put && kind != s3fake.Complete {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", name, kind), func(t *testing.T) {
				t.Parallel()
				server := s3fake.Start(t)
				c := config(server)
				c.Limits = quick()
				s := open(t, c)
				size := 6 << 20
				if kind == s3fake.Put {
					size = 1000
				}
				server.SetPlan(on(kind, 1, f))
				blobtest.Put(t, s, "a", noise(size))
				if !bytes.Equal(blobtest.Get(t, s, "a"), noise(size)) {
					t.Error("it has other bytes")
				}
				w, err := s.Create(t.Context(), "b")
				if err != nil {
					t.Fatal(err)
				}
				blobtest.Put(t, s, "b", []byte("another"))
				// Somebody else's blob is not taken for one's own, even if the answer is lost.
				server.SetPlan(on(s3fake.Put, 1, f))
				if err := w.Commit(); !errors.Is(err, blob.ErrExists) {
					t.Errorf("commit over another: %v", err)
				}
			})
		}
	}
}

// TestWritesEnd: without the service a commit fails in its time, and nothing is there.
func TestWritesEnd(t *testing.T) {
	for _, f := range []s3fake.Fault{{Status: 503, Code: "SlowDown"}, {Hang: true}, {Drop: true}} {
		for _, size := range []int{1000, 6 << 20} {
			t.Run(fmt.Sprintf("%+v/%d", f, size), func(t *testing.T) {
				t.Parallel()
				server := s3fake.Start(t)
				c := config(server)
				c.Limits = quick()
				c.Limits.Request = 250 * time.Millisecond
				s := open(t, c)
				w, err := s.Create(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				server.SetPlan(func(s3fake.Request) s3fake.Fault { return f })
				_, err = w.Write(noise(size))
				if err == nil {
					err = w.Commit()
				}
				if err == nil {
					t.Error("no error")
				}
				_ = w.Abort()
				if keys := server.Keys("bucket"); len(keys) != 0 {
					t.Errorf("there is %q", keys)
				}
			})
		}
	}
}

// TestListGoesOn: a listing of several pages in which requests fail has every name once.
func TestListGoesOn(t *testing.T) {
	server := s3fake.Start(t)
	s := open(t, config(server))
	for i := range 40 {
		blobtest.Put(t, s, fmt.Sprintf("p/%02d", i), []byte{byte(i)})
	}
	n := 0
	server.SetPlan(func(r s3fake.Request) s3fake.Fault {
		if n++; n%2 == 0 {
			return s3fake.Fault{Status: 503, Code: "SlowDown"}
		}
		return s3fake.Fault{}
	})
	list, err := s.List(t.Context(), "p/")
	if err != nil || len(list) != 40 {
		t.Fatalf("%d, %v", len(list), err)
	}
	for i, b := range list {
		if b.Name != fmt.Sprintf("p/%02d", i) {
			t.Errorf("%d: %s", i, b.Name)
		}
	}
}

// TestReadersOfABadService: many readers at once get right bytes or errors, while everything fails now and
// then.
func TestReadersOfABadService(t *testing.T) {
	server := s3fake.Start(t)
	c := config(server)
	c.Limits = quick()
	c.Limits.Tail = 10
	_, o, data := stored(t, c)
	var all []s3fake.Fault
	for _, f := range faults {
		all = append(all, f)
	}
	r := rand.New(rand.NewPCG(1, 2))
	server.SetPlan(func(s3fake.Request) s3fake.Fault {
		if r.IntN(3) > 0 {
			return s3fake.Fault{}
		}
		return all[r.IntN(len(all))]
	})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for range 30 {
				off := r.IntN(len(data))
				p := make([]byte, r.IntN(min(len(data)-off, 50_000)))
				n, err := o.ReadAt(p, int64(off))
				if err == nil && (n != len(p) || !bytes.Equal(p, data[off:off+n])) {
					t.Errorf("%d bytes at %d are wrong", len(p), off)
				}
				if !bytes.Equal(p[:n], data[off:off+n]) {
					t.Errorf("%d of %d bytes at %d are wrong", n, len(p), off)
				}
			}
		})
	}
	wg.Wait()
}
