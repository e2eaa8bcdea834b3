package ram

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// servedMemory is memory of a file that is served page by page, and a record of the calls of touch.
type servedMemory struct {
	*Memory
	mu   sync.Mutex
	gfns []uint64
	lost error
}

func serveFile(t *testing.T, m *Memory) *servedMemory {
	t.Helper()
	s := &servedMemory{Memory: m}
	err := s.StartPager(func(gfn uint64, thread int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gfns = append(s.gfns, gfn)
	}, func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lost = err
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPager: while pages are served, each touched page is reported once and in order. Afterwards the
// memory is mapped from the file again, with the changes.
func TestPager(t *testing.T) {
	s := serveFile(t, trackedFile(t))
	wantTouched, written := touchSome(t, s.Memory)
	r := rand.New(rand.NewPCG(1, 2)) // as touchSome
	var order []uint64
	for _, gfn := range r.Perm(trackedPages)[:400] {
		order = append(order, uint64(gfn))
	}
	touched, dirty, err := s.Scan()
	if err != nil {
		t.Fatal(err)
	}
	if !touched.Equal(wantTouched) || dirty.Count() != 0 {
		t.Errorf("%d pages are there, %d dirty; %d were touched", touched.Count(), dirty.Count(),
			wantTouched.Count())
	}
	// touchSome writes what it has read last; what was written and is as before counts as unchanged.
	last, wantDirty := byte(order[299])|1, wss.NewBitmap(trackedPages)
	for gfn := range uint64(trackedPages) {
		if written.Has(gfn) && byte(gfn)|1 != last {
			wantDirty.Set(gfn)
		}
	}
	if err := s.StopPager(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.gfns, order) {
		t.Errorf("told of %d faults, want %d in order", len(s.gfns), len(order))
	}
	if touched, dirty, err = s.Scan(); err != nil {
		t.Fatal(err)
	}
	if !touched.Equal(wantTouched) || !dirty.Equal(wantDirty) {
		t.Errorf("then %d touched, %d dirty, want %d and %d", touched.Count(), dirty.Count(),
			wantTouched.Count(), wantDirty.Count())
	}
	page := make([]byte, pageSize)
	for gfn := range uint64(trackedPages) {
		if _, err := s.ReadAt(page, int64(gfn*pageSize)); err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte{byte(gfn) | 1}, pageSize)
		if written.Has(gfn) {
			copy(want[16:], bytes.Repeat([]byte{last}, 8))
		}
		if !bytes.Equal(page, want) {
			t.Fatalf("page %d is another", gfn)
		}
	}
	if err := s.StopPager(); err != nil {
		t.Errorf("ended twice: %v", err)
	}
}

// TestPagerByMany: the VMM touches pages from many goroutines, as its devices may, while the garbage
// collector stops the world; and the memory is unmapped meanwhile. Nothing hangs, and no page is
// reported twice or wrong.
func TestPagerByMany(t *testing.T) {
	s := serveFile(t, trackedFile(t))
	stop := make(chan struct{})
	var readers, collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	for i := range uint64(8) {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(i/2, 3)) // two of each: they want the same page at once
			page := make([]byte, pageSize)
			for range 1000 {
				gfn := r.Uint64N(trackedPages)
				if _, err := s.ReadAt(page, int64(gfn*pageSize)); err != nil {
					t.Error(err)
				}
				if page[0] != byte(gfn)|1 || page[pageSize-1] != byte(gfn)|1 {
					t.Errorf("page %d begins with %d", gfn, page[0])
				}
			}
		})
	}
	awaitServed(t, s, 500)
	if err := s.StopPager(); err != nil {
		t.Error(err)
	}
	readers.Wait()
	close(stop)
	collector.Wait()
	seen := wss.NewBitmap(trackedPages)
	for _, gfn := range s.gfns {
		if !seen.Set(gfn) {
			t.Errorf("told of page %d twice", gfn)
		}
	}
}

// awaitServed waits until a number of pages were touched.
func awaitServed(t *testing.T, s *servedMemory, pages int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for n := 0; n < pages; {
		s.mu.Lock()
		n = len(s.gfns)
		s.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("%d pages in a minute", n)
		}
		runtime.Gosched()
	}
}

// TestPagerLost: a page that cannot be read is an error for the code that needs it, never zeros, also
// after the pager has stopped.
func TestPagerLost(t *testing.T) {
	s := serveFile(t, trackedFile(t))
	b := make([]byte, 8)
	if _, err := s.ReadAt(b, 7*pageSize); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.pieces[0].src.file.Name(), 100*pageSize); err != nil {
		t.Fatal(err)
	}
	var lost *LostError
	if _, err := s.ReadAt(b, 200*pageSize); !errors.As(err, &lost) || lost.GFN != 200 {
		t.Errorf("read of a lost page: %v", err)
	}
	s.mu.Lock()
	told := s.lost
	s.mu.Unlock()
	if !errors.As(told, &lost) || lost.GFN != 200 {
		t.Errorf("told of %v", told)
	}
	if _, err := s.ReadAt(b, 8*pageSize); err != nil || b[0] != 9 {
		t.Errorf("read of another page: %v, %v", b, err)
	}
	if err := s.StopPager(); !errors.As(err, &lost) {
		t.Errorf("the end: %v", err)
	}
	for _, gfn := range []int64{7, 50, 200} {
		if _, err := s.ReadAt(b, gfn*pageSize); !errors.As(err, &lost) {
			t.Errorf("read of page %d afterwards: %v, %v", gfn, b, err)
		}
	}
}

// TestPagerClosed: memory that is closed while its pages are served.
func TestPagerClosed(t *testing.T) {
	m := mapFileOf(t, trackedDir(t))
	s := serveFile(t, m)
	touchSome(t, m)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := s.StopPager(); err != nil {
		t.Errorf("ended afterwards: %v", err)
	}
}
