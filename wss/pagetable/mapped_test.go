package pagetable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// mappedImage is an image in a file that can be mapped.
type mappedImage struct {
	*os.File
	maps   atomic.Int64
	before func() // called before the first mapping is read
}

func (m *mappedImage) Map(off int64, n int) ([]byte, func() error, error) {
	b, err := unix.Mmap(int(m.Fd()), off, n, unix.PROT_READ, unix.MAP_SHARED)
	if m.maps.Add(1) == 1 && m.before != nil {
		m.before()
	}
	return b, func() error { return unix.Munmap(b) }, err
}

func newMappedImage(t *testing.T, b []byte) *mappedImage {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &mappedImage{File: f}
}

// TestFindMapped: the same is found in a mapping as by reading.
func TestFindMapped(t *testing.T) {
	g := newGuest(t, 7, 4096, 3, 4)
	want, err := g.space().Find(t.Context(), nil)
	if err != nil || len(want) != 4 { // three processes, and the kernel
		t.Fatal(want, err)
	}
	m := newMappedImage(t, g.b)
	s, err := NewSpace(m, g.pages(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Find(t.Context(), nil)
	if err != nil || !slices.Equal(got, want) || m.maps.Load() == 0 {
		t.Errorf("%v, want %v, %v; %d mappings", got, want, err, m.maps.Load())
	}
}

// TestFindInFileThatIsCut: an image that becomes shorter while it is searched is an error, and no fault.
func TestFindInFileThatIsCut(t *testing.T) {
	if emulator := os.Getenv("THAW_TEST_EMULATOR"); emulator != "" {
		t.Skipf("%s does not say at which address a fault was: Go takes it for a fault of its own", emulator)
	}
	g := newGuest(t, 8, 4096, 3, 4)
	m := newMappedImage(t, g.b)
	m.before = func() {
		if err := m.Truncate(100 * PageSize); err != nil {
			t.Error(err)
		}
	}
	s, err := NewSpace(m, g.pages(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context(), nil); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want %v", err, io.EOF)
	}
}
