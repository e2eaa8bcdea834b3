package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// hasIndex says whether a store has an index on disk.
func hasIndex(t *testing.T, dir string) bool {
	t.Helper()
	_, err := os.Lstat(filepath.Join(dir, indexDirName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// freshImage is an image of n pages that no other one has.
func freshImage(n int, seed uint64) testImage {
	img := make(testImage, n)
	for i := range img {
		img[i] = seed<<32 | uint64(i+1)
	}
	return img
}

// An import returns before its pages are in any index. The next one finds them all the same, wherever
// they are by then: in the tail, in the index on disk, or some here and some there.
func TestNextImportKnowsThePages(t *testing.T) {
	for name, reopen := range map[string]bool{"one process": false, "other processes": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/store"
			open := func() *Store {
				s := openKept(t, dir)
				s.limits.tailPages = 500
				return s
			}
			s := open()
			for i := range uint64(5) {
				b := freshImage(200, i).bytes()
				_, st := mustImport(t, s, fmt.Sprint(i), writeSource(t, b, nil), nil)
				if st.NewPages != 200 {
					t.Errorf("import %d: %d new pages", i, st.NewPages)
				}
				if want := i > 2; hasIndex(t, dir) != want {
					t.Errorf("import %d: an index on disk is %v, want %v", i, !want, want)
				}
				if reopen {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = open()
				}
				// Of another size, and with its pages elsewhere, so that no parent helps.
				again := append(testImage{0, 0, 0}, freshImage(200, i)...)
				_, st = mustImport(t, s, fmt.Sprint(i, "-again"), writeSource(t, again.bytes(), nil), nil)
				if st.NewPages != 0 {
					t.Errorf("import %d, again: %d pages were stored twice", i, st.NewPages)
				}
			}
			var all testImage
			for i := range uint64(5) {
				all = append(all, freshImage(200, i)...)
			}
			if _, st := mustImport(t, s, "all", writeSource(t, all.bytes(), nil), nil); st.NewPages != 0 {
				t.Errorf("all: %d pages were stored twice", st.NewPages)
			}
			if rep := checkClean(t, s, true); rep.IndexMended != 0 || rep.IndexKeys != 1000 {
				t.Errorf("%+v", rep)
			}
			m := openImage(t, s, "all")
			defer m.Close()
			sameImage(t, m, all.bytes())
		})
	}
}

// Many packs with few pages do not stay in the tail either: to open each of them would take long.
func TestTailOfManyPacks(t *testing.T) {
	dir := t.TempDir() + "/store"
	s := openKept(t, dir)
	s.limits.tailPages = maxTail
	img := make(testImage, 0, maxTailPacks+2)
	for i := range uint64(maxTailPacks + 2) {
		img = append(img, 1+i)
		mustImport(t, s, fmt.Sprint(i), writeSource(t, img.bytes(), nil), nil)
		if n := len(s.hints.tail.packs); n > maxTailPacks {
			t.Fatalf("%d packs in the tail", n)
		}
	}
	if !hasIndex(t, dir) {
		t.Error("no index on disk")
	}
	if rep := checkClean(t, s, true); rep.IndexMended != 0 || rep.IndexKeys != uint64(len(img)) {
		t.Errorf("%+v", rep)
	}
}

// An import that is too large to remember its own pages finds them in the index on disk, and so does the
// next one.
func TestLargeImportSettles(t *testing.T) {
	r := rand.New(rand.NewPCG(120, 1))
	dir := t.TempDir() + "/store"
	s := openKept(t, dir)
	s.limits = limits{packPages: 300, freshPages: 256, tailPages: maxTail}
	img := freshImage(2000, 1)
	img = append(img, img...)
	r.Shuffle(2000, func(i, j int) { img[i], img[j] = img[j], img[i] })
	_, st := mustImport(t, s, "one", writeSource(t, img.bytes(), nil), nil)
	if st.NewPages != 2000 {
		t.Errorf("%d new pages", st.NewPages)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openKept(t, dir)
	s.limits.tailPages = maxTail
	later := append(testImage{0}, img...)
	if _, st := mustImport(t, s, "two", writeSource(t, later.bytes(), nil), nil); st.NewPages != 0 {
		t.Errorf("%d pages were stored twice", st.NewPages)
	}
	if rep := checkClean(t, s, true); rep.IndexMended != 0 || rep.IndexKeys != 2000 {
		t.Errorf("%+v", rep)
	}
}

// A pack of the tail whose hashes are damaged costs space, not the import.
func TestTailOfADamagedPack(t *testing.T) {
	dir := t.TempDir() + "/store"
	s := openTest(t, dir, nil)
	b := freshImage(200, 1).bytes()
	mustImport(t, s, "one", writeSource(t, b, nil), nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	f, err := os.OpenFile(packs[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1, 2, 3}, st.Size()-96-200*16/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	_, stats, err := s.Import(context.Background(), writeSource(t, append(make([]byte, PageSize), b...), nil),
		ImportOptions{Name: "two"})
	if err != nil || stats.NewPages != 200 {
		t.Fatalf("%+v, %v", stats, err)
	}
	m := openImage(t, s, "two")
	defer m.Close()
	sameImage(t, m, append(make([]byte, PageSize), b...))
}
