package rawfs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob/disk"
)

// TestPlaces compares with counting page by page.
func TestPlaces(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		const pages = 300
		data := make([]bool, pages)
		var extents []index.Run
		for gfn := rnd.Uint64N(20); gfn < pages; gfn += 1 + rnd.Uint64N(30) {
			r := index.Run{GFN: gfn, Count: min(1+rnd.Uint64N(20), pages-gfn)}
			extents = append(extents, r)
			for ; gfn < r.GFN+r.Count; gfn++ {
				data[gfn] = true
			}
		}
		p := placesOf(extents)
		before := uint64(0)
		for gfn := range uint64(pages) {
			if p.before(gfn) != before || p.hole(gfn) == data[gfn] {
				t.Fatalf("page %d of %v: %d before it, want %d; a hole: %v", gfn, extents,
					p.before(gfn), before, p.hole(gfn))
			}
			if data[gfn] {
				before++
			}
		}
		holes := make([]bool, pages)
		p.holes(pages, func(first, count uint64) bool {
			for gfn := first; gfn < first+count; gfn++ {
				holes[gfn] = true
			}
			return true
		})
		for gfn := range data {
			if holes[gfn] == data[gfn] {
				t.Fatalf("page %d of %v: a hole %v", gfn, extents, holes[gfn])
			}
		}
		calls := 0
		p.holes(pages, func(_, _ uint64) bool { calls++; return false })
		if calls > 1 {
			t.Error("holes goes on after false")
		}
	}
}

// checkpoint writes a directory with a memory of so many pages, of which every third run of 8 is a
// hole, and a state.
func checkpoint(t *testing.T, pages int) (dir string, image []byte) {
	t.Helper()
	dir = t.TempDir()
	f, err := os.Create(filepath.Join(dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image = make([]byte, pages*fs.PageSize)
	for i := 0; i < pages; i += 8 {
		if i/8%3 == 2 {
			continue
		}
		part := image[i*fs.PageSize:][:8*fs.PageSize]
		for j := range part {
			part[j] = byte(i/8 + j%251 + 1)
		}
		if _, err := f.WriteAt(part, int64(i*fs.PageSize)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(len(image))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state"), []byte("registers"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, image
}

// quick is a disk with one head that costs no time.
func quick() *disk.Disk {
	return disk.New(disk.Spec{Name: "quick", Seek: 1, Bandwidth: 1e15, Parallel: 1})
}

// TestMemory: bytes are right however they are read; the disk is asked for data only, and what
// follows in the file follows on the disk.
func TestMemory(t *testing.T) {
	dir, image := checkpoint(t, 96)
	d := quick()
	s, err := Open(dir, "a", d)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].MemoryBytes != int64(len(image)) ||
		list[0].Files["state"] != 9 {
		t.Errorf("%+v, %v", list, err)
	}
	m, err := s.OpenImage(t.Context(), list[0])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	read := func(first, count int, bytesRead, seeks int64) {
		t.Helper()
		before := d.Stats()
		dst := make([]byte, count*fs.PageSize)
		if err := m.ReadRange(uint64(first), dst); err != nil ||
			!bytes.Equal(dst, image[first*fs.PageSize:][:len(dst)]) {
			t.Errorf("%d pages from %d: wrong, %v", count, first, err)
		}
		after := d.Stats()
		if n := after.Bytes - before.Bytes; n != bytesRead {
			t.Errorf("%d pages from %d: %d bytes charged, want %d", count, first, n, bytesRead)
		}
		if n := after.Seeks - before.Seeks; n != seeks {
			t.Errorf("%d pages from %d: %d seeks, want %d", count, first, n, seeks)
		}
	}
	const page = fs.PageSize
	read(0, 8, 8*page, 1)
	read(8, 8, 8*page, 0)
	read(16, 8, 0, 0)        // a hole
	read(24, 1, page, 0)     // follows on the disk
	read(28, 32, 24*page, 1) // around a hole
	read(0, 96, 64*page, 1)
	if m.Zero(0) || !m.Zero(16) || !m.Zero(23) || m.Zero(24) {
		t.Error("holes are not where they are")
	}
	before := d.Stats()
	seen := map[uint64]bool{}
	feed := m.EagerFeed()
	var p fs.Piece
	for i := range feed.Len() {
		if err := index.ReadPiece(t.Context(), feed, i, &p); err != nil {
			t.Fatal(err)
		}
		for j, gfn := range p.GFNs {
			seen[gfn] = true
			if !bytes.Equal(p.Pages[j*page:][:page], image[gfn*page:][:page]) {
				t.Fatalf("eager: page %d is wrong", gfn)
			}
		}
	}
	after := d.Stats()
	if len(seen) != 64 || after.Seeks-before.Seeks != 1 || after.Bytes-before.Bytes != 64*page {
		t.Errorf("eager: %d pages, %+v after %+v", len(seen), after, before)
	}
	if m.WorkingSetFeed().Len() != 0 || m.Local() || len(m.Neighbours(0, nil)) > 0 {
		t.Error("a plain file has a working set or blocks")
	}
}

// TestFiles: what lies beside the memory is there, and nothing else.
func TestFiles(t *testing.T) {
	dir, _ := checkpoint(t, 8)
	d := quick()
	s, err := Open(dir, "a", d)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.OpenFile(t.Context(), fs.Checkpoint{}, "state")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 9)
	if n, err := f.ReadAt(b, 0); n != 9 || err != nil || string(b) != "registers" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.OpenFile(t.Context(), fs.Checkpoint{}, "other"); !errors.Is(err, fs.ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	if d.Stats().Requests != 0 {
		t.Error("a file beside the memory was charged")
	}
	if _, err := Open(filepath.Join(dir, "state"), "a", d); err == nil {
		t.Error("a file of 9 bytes is memory")
	}
	if _, err := Open(dir, "../a", d); err == nil {
		t.Error("a path is a name")
	}
}

// TestMountRefuses: a file has no working set, and no name but one that a checkpoint can have.
func TestMountRefuses(t *testing.T) {
	dir, _ := checkpoint(t, 8)
	for what, mount := range map[string]func() (*Server, error){
		"policy": func() (*Server, error) {
			return Mount(t.Context(), dir, t.TempDir(), "one", nil, fs.Options{})
		},
		"name": func() (*Server, error) {
			return Mount(t.Context(), dir, t.TempDir(), "..", nil, fs.Options{Policy: fs.PolicyLazy})
		},
	} {
		if s, err := mount(); err == nil {
			t.Errorf("%s: mounted on %s", what, s.mnt)
		}
	}
}
