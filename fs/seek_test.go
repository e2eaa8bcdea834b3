package fs

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
)

// extentsOf walks a file as cp, tar and VMMs do: where data begins and ends, in turn.
func extentsOf(fd int) (list []int64, err error) {
	for off := int64(0); ; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if off, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil {
			return nil, err
		}
		list = append(list, data, off)
	}
}

// A sparseImage is a memory whose pages of zeros are holes in a file of the host.
type sparseImage struct {
	data []bool
	file *os.File
}

// randomSparse has runs of zeros and of data, of lengths from a page to many; where all is set, it is all
// data or all zeros.
func randomSparse(t *testing.T, r *rand.Rand, pages int) *sparseImage {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s := &sparseImage{make([]bool, pages), f}
	page := make([]byte, PageSize)
	for at := 0; at < pages; {
		n := min(1+r.IntN(1<<r.IntN(11)), pages-at)
		if r.IntN(2) == 0 {
			for i := at; i < at+n; i++ {
				page[0], page[9], s.data[i] = byte(i)|1, byte(i>>8), true
				if _, err := f.WriteAt(page, int64(i)*PageSize); err != nil {
					t.Fatal(err)
				}
			}
		}
		at += n
	}
	if err := f.Truncate(int64(pages) * PageSize); err != nil {
		t.Fatal(err)
	}
	return s
}

// punch makes pages holes in the file.
func (s *sparseImage) punch(t *testing.T, first, count int) {
	t.Helper()
	if err := unix.Fallocate(int(s.file.Fd()), punch, int64(first)*PageSize, int64(count)*PageSize); err != nil {
		t.Fatal(err)
	}
	for i := first; i < min(first+count, len(s.data)); i++ {
		s.data[i] = false
	}
}

// extents are those of the plain model.
func (s *sparseImage) extents() (list []int64) {
	for i, data := range s.data {
		if data != (i > 0 && s.data[i-1]) {
			list = append(list, int64(i)*PageSize)
		}
	}
	if n := len(s.data); s.data[n-1] {
		list = append(list, int64(n)*PageSize)
	}
	return list
}

// TestSeek: a memory file, and a clone of which a machine discards pages, have the holes that a sparse file
// of the same content has, from any offset on.
func TestSeek(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	store, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "store"), index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	b := mountedStore(t, NewStore(store), Options{})
	c := b.client()
	for round := range rounds {
		s := randomSparse(t, r, 1+r.IntN(6000))
		name := string(rune('a' + round))
		src, err := index.OpenSource(s.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := store.Import(t.Context(), src, index.ImportOptions{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		fd := c.open(b.path(name, "memory"), unix.O_RDONLY)
		sameHoles(t, c, fd, s, r)
		if st := c.do(request{Op: "stat", Path: b.path(name, "memory")}); st.Room != int64(got.DataPages)*8 {
			t.Errorf("%d blocks, want those of %d pages", st.Room, got.DataPages)
		}
		clone := c.open(b.path(name, "clones/x/memory"), unix.O_RDWR)
		before := s.extents()
		for range 3 {
			first := r.IntN(len(s.data))
			n := 1 + r.IntN(1+r.IntN(len(s.data)))
			n = min(n, len(s.data)-first)
			s.punch(t, first, n)
			c.do(request{Op: "fallocate", FD: clone, Flags: punch, Off: int64(first) * PageSize, Len: n * PageSize})
			sameHoles(t, c, clone, s, r)
		}
		if list := c.do(request{Op: "extents", FD: fd}).Extents; !slices.Equal(list, before) {
			t.Errorf("what a clone discards is a hole in memory: %v, want %v", list, before)
		}
		c.close(fd)
		c.close(clone)
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

// sameHoles compares an open file with a sparse one.
func sameHoles(t *testing.T, c *proc, fd int, s *sparseImage, r *rand.Rand) {
	t.Helper()
	want := s.extents()
	local, err := extentsOf(int(s.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(local, want) {
		t.Skipf("the host's file system tells holes of other sizes: %v, want %v", local, want)
	}
	if got := c.do(request{Op: "extents", FD: fd}).Extents; !slices.Equal(got, want) {
		t.Errorf("data and holes at %v, want %v", got, want)
	}
	size := int64(len(s.data)) * PageSize
	for range 30 {
		off := r.Int64N(size + 2*PageSize)
		if r.IntN(4) == 0 {
			off = min(off/PageSize*PageSize, size)
		}
		whence := unix.SEEK_DATA + r.IntN(2)
		at, err := unix.Seek(int(s.file.Fd()), off, whence)
		res := c.try(request{Op: "seek", FD: fd, Off: off, Flags: whence})
		if !errors.Is(err, unix.ENXIO) && err != nil || (err != nil) != (res.Errno == unix.ENXIO) ||
			err == nil && (res.N != at || res.Err != "") {
			t.Errorf("lseek(%d, %d) of %d bytes: %d, %s, want %d, %v", off, whence, size, res.N, res.Err, at, err)
		}
	}
}

// Files that are no memory have no holes; what cannot be read has none to tell.
func TestSeekElsewhere(t *testing.T) {
	x := spec{Name: "a", Pages: 64, ZeroEvery: 2, Files: map[string]string{"state": "\x00\x00cpu"}}
	b := mounted(t, newFakeStore(x), Options{})
	c := b.client()
	for _, name := range []string{"state", "info.json"} {
		st := c.do(request{Op: "stat", Path: b.path("a", name)})
		fd := c.open(b.path("a", name), unix.O_RDONLY)
		if got := c.do(request{Op: "extents", FD: fd}).Extents; !slices.Equal(got, []int64{0, st.N}) {
			t.Errorf("%s has its data at %v, want 0 to %d", name, got, st.N)
		}
		c.close(fd)
	}
	live := c.open(b.path("a/stats.json"), unix.O_RDONLY)
	if got := c.do(request{Op: "extents", FD: live}).Extents; len(got) != 2 || got[0] != 0 || got[1] < 10 {
		t.Errorf("stats.json has its data at %v", got)
	}
	c.close(live)

	// The calls that the kernel answers itself go on to work.
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	if got := c.do(request{Op: "seek", FD: fd, Off: -PageSize, Flags: unix.SEEK_END}).N; got != 63*PageSize {
		t.Errorf("SEEK_END gives %d", got)
	}
	c.close(fd)
	bad := c.open(b.path("a/clones/x/memory"), unix.O_RDWR)
	if res := c.try(request{Op: "pwrite", FD: bad, Len: 1, Value: 1}); res.Errno != unix.EROFS {
		t.Errorf("a write to a clone: %q", res.Err)
	}
	if res := c.try(request{Op: "seek", FD: bad, Flags: unix.SEEK_DATA}); res.Errno != unix.EIO {
		t.Errorf("holes of a poisoned clone: %q", res.Err)
	}
	c.close(bad)
}

// The set of discarded pages is walked word by word.
func TestBitmapNext(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 30 {
		pages := 1 + r.Uint64N(3*chunkPages)
		b := newBitmap(pages)
		model := make([]bool, pages)
		for range r.IntN(8) {
			first := r.Uint64N(pages)
			n := r.Uint64N(1 << r.IntN(17))
			b.addRange(first, n)
			for i := first; i < min(first+n, pages); i++ {
				model[i] = true
			}
		}
		for range 50 {
			for _, in := range []bool{true, false} {
				from := r.Uint64N(pages + 2)
				want := from
				for want < pages && model[want] != in {
					want++
				}
				if got := b.next(from, in); got != min(want, pages) {
					t.Fatalf("from %d on of %d, in: %v: %d, want %d", from, pages, in, got, min(want, pages))
				}
			}
		}
	}
}
