package vmm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// servedMemory is memory of a file that is served page by page, and what it tells of that.
type servedMemory struct {
	*memory
	mu   sync.Mutex
	gfns []uint64
	lost error
}

func serveFile(t *testing.T, m *memory) *servedMemory {
	t.Helper()
	s := &servedMemory{memory: m}
	err := s.serveMissing(func(gfn uint64, thread int) {
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

// TestMissing: while pages are served, what was touched is told page by page, once and in order; then
// the memory is that of the file again, with what was changed.
func TestMissing(t *testing.T) {
	s := serveFile(t, trackedFile(t))
	wantTouched, written := touchSome(t, s.memory)
	r := rand.New(rand.NewPCG(1, 2)) // as touchSome
	var order []uint64
	for _, gfn := range r.Perm(trackedPages)[:400] {
		order = append(order, uint64(gfn))
	}
	touched, dirty, err := s.scan()
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
	if err := s.endMissing(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.gfns, order) {
		t.Errorf("told of %d faults, want %d in order", len(s.gfns), len(order))
	}
	if touched, dirty, err = s.scan(); err != nil {
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
	if err := s.endMissing(); err != nil {
		t.Errorf("ended twice: %v", err)
	}
}

// TestMissingByMany: the VMM itself touches pages from many goroutines, as its devices may, while
// the collector stops the world; and the memory goes away under them. Nobody hangs, no page is told
// of twice, none is wrong.
func TestMissingByMany(t *testing.T) {
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
	if err := s.endMissing(); err != nil {
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

// awaitServed waits until so many pages were touched.
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

// TestMissingLost: a page that cannot be had is an error for whoever needs it, never zeros, also when
// the serving has ended.
func TestMissingLost(t *testing.T) {
	s := serveFile(t, trackedFile(t))
	b := make([]byte, 8)
	if _, err := s.ReadAt(b, 7*pageSize); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.pieces[0].src.file.Name(), 100*pageSize); err != nil {
		t.Fatal(err)
	}
	var lost *MemoryLostError
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
	if err := s.endMissing(); !errors.As(err, &lost) {
		t.Errorf("the end: %v", err)
	}
	for _, gfn := range []int64{7, 50, 200} {
		if _, err := s.ReadAt(b, gfn*pageSize); !errors.As(err, &lost) {
			t.Errorf("read of page %d afterwards: %v, %v", gfn, b, err)
		}
	}
}

// TestMissingClosed: memory that is closed while its pages are served.
func TestMissingClosed(t *testing.T) {
	img, err := OpenImage(trackedDir(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := mapImage(img)
	if err != nil {
		t.Fatal(err)
	}
	s := serveFile(t, m)
	touchSome(t, m)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := s.endMissing(); err != nil {
		t.Errorf("ended afterwards: %v", err)
	}
}

// TestTraceByFaultsGoesOn: after a trace the guest goes on with what it had, which it checks itself;
// and what it has changed is in the next checkpoint, also in a differential one.
func TestTraceByFaultsGoesOn(t *testing.T) {
	m := startReady(t, spec("random:20", "units", "300000"), testMemory)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	stats, err := m.CheckpointWith(t.Context(), first, CheckpointOptions{Trace: time.Second / 4,
		way: wayFaults})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Trace == nil {
		t.Skip(stats.Note)
	}
	traced := readSet(t, first).Bitmap()
	touched, _, err := m.mem.scan()
	if err != nil {
		t.Fatal(err)
	}
	if missed := traced.AndNot(touched).Count(); missed > 0 || traced.Count() == 0 {
		t.Errorf("%d of %d traced pages are not known to be touched", missed, traced.Count())
	}
	stats, err = m.CheckpointWith(t.Context(), second, CheckpointOptions{Diff: true,
		Trace: time.Second / 4, way: wayFaults, pieces: maxPieces})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Trace == nil || stats.Trace.Pages == 0 {
		t.Errorf("%+v", stats)
	}
	runUntil(t, m, m.ports.snapshot().Done+2000)
	third := filepath.Join(dir, "third")
	stats, err = m.CheckpointWith(t.Context(), third, CheckpointOptions{Diff: true, pieces: 1,
		Trace: time.Second / 4, way: wayFaults, Stop: true})
	if err != nil || stats.Trace != nil || !strings.Contains(stats.Note, "too many pieces") {
		t.Errorf("%+v, %v", stats, err)
	}
	for _, dir := range []string{second, third} {
		l, err := Load(dir, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		runUntil(t, l.Machine, l.ports.snapshot().Done+4000)
	}
}

// TestTraceByFaultsLost: a guest whose checkpoint is cut off while its pages are served ends with that
// error, and so does the trace.
func TestTraceByFaultsLost(t *testing.T) {
	m := startReady(t, spec("random:20", "units", "200000000"), testMemory)
	dir := filepath.Join(t.TempDir(), "cp")
	traced := make(chan error, 1)
	go func() {
		_, err := m.CheckpointWith(t.Context(), dir, CheckpointOptions{Trace: time.Minute,
			way: wayFaults})
		traced <- err
	}()
	begun := func() bool {
		m.mem.mu.RLock()
		defer m.mem.mu.RUnlock()
		return m.mem.missing != nil
	}
	for !begun() {
		select {
		case err := <-traced:
			t.Skip(err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := os.Truncate(filepath.Join(dir, memoryFile), 0); err != nil {
		t.Fatal(err)
	}
	var lost *MemoryLostError
	if err := m.Wait(t.Context()); !errors.As(err, &lost) || !lost.Known {
		t.Errorf("the machine ended with %v", err)
	}
	if err := <-traced; !errors.As(err, &lost) {
		t.Errorf("the trace ended with %v", err)
	}
}
