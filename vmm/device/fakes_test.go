package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

var errInjected = errors.New("injected")

// faults makes one call of many fail.
type faults struct {
	mu    sync.Mutex
	calls int
	fail  int // the number of the call that fails, from 1; 0: none
}

func (f *faults) next() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.calls == f.fail {
		return errInjected
	}
	return nil
}

// arm makes the n-th call from now on fail.
func (f *faults) arm(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.fail = 0, n
}

// fakeMemory is guest memory that guest and device may use at the same time. An access outside of
// it panics: a device has to find out before.
type fakeMemory struct {
	faults
	mu      sync.Mutex // guards what follows
	bytes   []byte
	longest int // bytes of an access
	onRead  func(p []byte, addr int64) bool
	onWrite func(p []byte, addr int64)
}

func newFakeMemory(size int) *fakeMemory { return &fakeMemory{bytes: make([]byte, size)} }

func (m *fakeMemory) ReadAt(p []byte, addr int64) (int, error) {
	if err := m.next(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.longest = max(m.longest, len(p))
	if m.onRead != nil && m.onRead(p, addr) {
		return len(p), nil
	}
	return copy(p, m.bytes[addr:addr+int64(len(p))]), nil
}

func (m *fakeMemory) WriteAt(p []byte, addr int64) (int, error) {
	if err := m.next(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.longest = max(m.longest, len(p))
	if m.onWrite != nil {
		m.onWrite(p, addr)
	}
	return copy(m.bytes[addr:addr+int64(len(p))], p), nil
}

// get and put are the guest's own accesses.
func (m *fakeMemory) get(addr uint64, n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.bytes[addr:addr+uint64(n)]...)
}

func (m *fakeMemory) put(addr uint64, p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.bytes[addr:], p)
}

func (m *fakeMemory) get16(addr uint64) uint16 { return le.Uint16(m.get(addr, 2)) }

func (m *fakeMemory) put16(addr uint64, v uint16) { m.put(addr, le.AppendUint16(nil, v)) }

func (m *fakeMemory) ram() *RAM { return NewRAM(m, Range{0, uint64(len(m.bytes))}) }

// fakeLine is an input of an interrupt controller.
type fakeLine struct {
	faults
	mu     sync.Mutex // guards what follows
	level  bool
	edges  int           // how often it was asserted
	change chan struct{} // closed at the next change
}

func newFakeLine() *fakeLine { return &fakeLine{change: make(chan struct{})} }

func (l *fakeLine) Set(asserted bool) error {
	if err := l.next(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if asserted && !l.level {
		l.edges++
	}
	l.level = asserted
	close(l.change)
	l.change = make(chan struct{})
	return nil
}

func (l *fakeLine) get() (level bool, edges int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.level, l.edges
}

// await waits until the line is asserted. That it is not within a long time is a lost interrupt.
func (l *fakeLine) await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		l.mu.Lock()
		level, change := l.level, l.change
		l.mu.Unlock()
		if level {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
			t.Fatal("an interrupt is lost")
		}
	}
}

// receive takes from a channel, which must not take for ever.
func receive[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case v := <-ch:
		return v
	case <-ctx.Done():
		t.Fatalf("%s: it does not come", what)
		panic("unreachable")
	}
}

// fakeStorage is a disk in memory.
type fakeStorage struct {
	faults
	mu     sync.Mutex // guards what follows
	bytes  []byte
	synced []byte // what would survive
	closed bool
	hold   chan chan struct{} // if not nil, each transfer sends a channel and waits for its close
}

func newFakeStorage(size int) *fakeStorage {
	return &fakeStorage{bytes: make([]byte, size), synced: make([]byte, size)}
}

func (s *fakeStorage) call(f func()) error {
	if err := s.next(); err != nil {
		return err
	}
	if s.hold != nil {
		release := make(chan struct{})
		s.hold <- release
		<-release
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	return nil
}

func (s *fakeStorage) ReadAt(p []byte, off int64) (n int, err error) {
	err = s.call(func() { n = copy(p, s.bytes[off:]) })
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (s *fakeStorage) WriteAt(p []byte, off int64) (n int, err error) {
	err = s.call(func() { n = copy(s.bytes[off:], p) })
	return n, err
}

func (s *fakeStorage) Sync() error { return s.call(func() { copy(s.synced, s.bytes) }) }

func (s *fakeStorage) Discard(off, size int64) error { return s.Zero(off, size, true) }

func (s *fakeStorage) Zero(off, size int64, _ bool) error {
	return s.call(func() { clear(s.bytes[off : off+size]) })
}

func (s *fakeStorage) Changed() (time.Time, error) {
	return time.Unix(1, 0), s.next()
}

func (s *fakeStorage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("closed twice")
	}
	s.closed = true
	return nil
}

func (s *fakeStorage) disk() *Disk {
	return &Disk{storage: s, name: "fake", sectors: uint64(len(s.bytes)) / sectorSize}
}

// diskFile makes a file for a disk.
func diskFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// noFailure is a VirtioConfig.Fail for tests in which nothing fails.
func noFailure(t testing.TB) func(error) {
	return func(err error) { t.Errorf("the machine ends: %v", err) }
}

func testConfig(t testing.TB, mem *fakeMemory, line *fakeLine) VirtioConfig {
	return VirtioConfig{RAM: mem.ram(), Line: line, Fail: noFailure(t), Log: quiet}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
