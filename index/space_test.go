package index

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a tmpfs of some MiB.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("needs to mount a tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// fillDisk takes what is left of a disk.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for len(buf) > 0 {
		if _, err := f.Write(buf); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			buf = buf[:len(buf)/2]
		}
	}
}

// incompressible is an image that takes as much in a store as in memory.
func incompressible(r *rand.Rand, pages int) testImage {
	m := make(testImage, pages)
	for i := range m {
		m[i] = (1 + r.Uint64()>>8) / 7 * 7 // see fillPage
	}
	return m
}

// A full disk is an error, nothing is lost by it, and removing helps.
func TestFullDisk(t *testing.T) {
	ctx := context.Background()
	dir := smallDisk(t, "64m")
	store := filepath.Join(dir, "store")
	r := rand.New(rand.NewPCG(51, 1))
	one := randomImage(r, 2000).bytes()
	s := openKept(t, store)
	mustImport(t, s, "one", writeSource(t, one, nil), nil)
	big := writeSource(t, incompressible(r, 18000).bytes(), nil)
	if _, _, err := s.Import(ctx, big, ImportOptions{Name: "big"}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("an image larger than the disk: %v", err)
	}
	checkClean(t, s, true)
	some := incompressible(r, 3000)
	mustImport(t, s, "some", writeSource(t, some.bytes(), nil), nil)
	ballast := filepath.Join(dir, "other")
	fillDisk(t, ballast)
	small := writeSource(t, randomImage(r, 100).bytes(), nil)
	// More than is free when even the index is gone.
	more := writeSource(t, incompressible(r, 4000).bytes(), nil)
	if _, _, err := s.Import(ctx, more, ImportOptions{Name: "more"}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("import on a full disk: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close on a full disk: %v", err)
	}
	fillDisk(t, filepath.Join(dir, "other2"))

	// The store is opened with not a byte left.
	s = openKept(t, store)
	m := openImage(t, s, "one")
	sameImage(t, m, one)
	m.Close()
	if _, _, err := s.Import(ctx, more, ImportOptions{Name: "more"}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("import on a full disk: %v", err)
	}
	if err := s.Remove(ctx, "some"); err != nil {
		t.Errorf("remove on a full disk: %v", err)
	}
	rep, err := s.GC(ctx, GCOptions{})
	if err != nil || rep.FreedBytes < 3000*PageSize {
		t.Errorf("collect on a full disk: %+v, %v", rep, err)
	}
	for _, name := range []string{ballast, filepath.Join(dir, "other2")} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	mustImport(t, s, "small", small, nil)
	checkClean(t, s, true)
	s.Close()
	s = openKept(t, store)
	checkClean(t, s, true)
}
