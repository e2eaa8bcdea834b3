package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// damageStore makes a store to be damaged, and gives the images in it.
func damageStore(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	r := rand.New(rand.NewPCG(31, 1))
	one := randomImage(r, 1500)
	two := one.change(r, 30)
	images := map[string][]byte{"one": one.bytes(), "two": two.bytes()}
	s := openTest(t, dir, nil)
	files := map[string][]byte{"state": bytes.Repeat([]byte("abcd"), 30000)}
	mustImport(t, s, "one", writeSource(t, images["one"], files), []Run{{10, 300}})
	mustImport(t, s, "two", writeSource(t, images["two"], nil), nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return images
}

// readDamaged reads everything from a damaged store: right bytes or an error, never anything else.
// It gives how many pages could not be read.
func readDamaged(t *testing.T, dir string, images map[string][]byte) (bad int, report CheckReport) {
	t.Helper()
	ctx := context.Background()
	s, err := Open(ctx, dir, OpenOptions{Keys: keysFor(dir)})
	if err != nil {
		t.Fatalf("a damaged store must open: %v", err)
	}
	defer s.Close()
	for name, want := range images {
		m, err := s.OpenImage(ctx, name)
		if err != nil {
			if !isDamage(err) {
				t.Fatalf("open %s: %v", name, err)
			}
			bad += len(want) / PageSize
			continue
		}
		bad += readDamagedImage(t, m, want)
		m.Close()
	}
	report, err = s.Check(ctx, CheckOptions{ReadData: true})
	if err != nil {
		t.Fatal(err)
	}
	return bad, report
}

func readDamagedImage(t *testing.T, m *Image, want []byte) (bad int) {
	t.Helper()
	page := make([]byte, PageSize)
	for gfn := range m.Pages() {
		err := m.ReadPage(gfn, page)
		switch {
		case err != nil && !isDamage(err):
			t.Fatalf("page %d: %v", gfn, err)
		case err != nil:
			bad++
		case !bytes.Equal(page, want[gfn*PageSize:][:PageSize]):
			t.Fatalf("page %d: wrong bytes", gfn)
		}
	}
	var p Piece
	for _, feed := range []Feed{m.EagerFeed(), m.WorkingSetFeed()} {
		for i := range feed.Len() {
			err := ReadPiece(context.Background(), feed, i, &p)
			if err == nil {
				comparePiece(t, &p, want, map[uint64]int{})
			} else if !isDamage(err) {
				t.Fatalf("piece %d: %v", i, err)
			}
		}
	}
	return bad
}

// blobFiles returns the packs and roots of a store.
func blobFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		in := filepath.Base(filepath.Dir(path)) == rootsDirName // under whatever name: those of a sealed store
		if err == nil && e.Type().IsRegular() && (in || strings.HasSuffix(path, ".pack")) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// Wherever a byte is flipped: an error or right bytes.
func TestFlippedBytes(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed=%v", sealed), func(t *testing.T) { flippedBytes(t, sealed) })
	}
}

func flippedBytes(t *testing.T, sealed bool) {
	dir := t.TempDir()
	sound := filepath.Join(dir, "sound")
	if sealed {
		makeSealed(t, sound)
	}
	images := damageStore(t, sound)
	r := newRand(t)
	perFile := fewer(30, 10)
	for _, file := range blobFiles(t, sound) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range perFile {
			// Everywhere, the end more often: there the structure is.
			at := r.IntN(len(b))
			if i%2 == 0 {
				at = len(b) - 1 - r.IntN(min(len(b), 4000))
			}
			damaged := filepath.Join(dir, "damaged")
			copyTree(t, sound, damaged)
			if i%3 == 0 {
				os.RemoveAll(filepath.Join(damaged, indexDirName))
			}
			rel, _ := filepath.Rel(sound, file)
			bit := byte(1) << r.IntN(8)
			b[at] ^= bit
			if err := os.WriteFile(filepath.Join(damaged, rel), b, 0o600); err != nil {
				t.Fatal(err)
			}
			b[at] ^= bit
			// A sealed blob has what its first and its last 40 bytes say twice.
			harmless := sealed && (at < 40 || at >= len(b)-40)
			if _, report := readDamaged(t, damaged, images); report.OK() != harmless {
				t.Errorf("%s: byte %d of %d is damaged; a check says %v", rel, at, len(b), report.Problems)
			}
			if err := os.RemoveAll(damaged); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Damage of one place in the pages costs the pages that lie there, and no other.
func TestDamagedPage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	images := damageStore(t, dir)
	file := filepath.Join(dir, "packs", "0000000001.0.pack")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/3] ^= 0x40
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	bad, report := readDamaged(t, dir, images)
	// A unit holds up to eight pages, and both checkpoints may have them, some more than once.
	if bad == 0 || bad > 64 {
		t.Errorf("%d pages are lost", bad)
	}
	if report.OK() {
		t.Error("a check finds nothing")
	}
}

// A lost or truncated file is an error, nothing worse.
func TestMissingFiles(t *testing.T) {
	dir := t.TempDir()
	sound := filepath.Join(dir, "sound")
	images := damageStore(t, sound)
	for _, file := range blobFiles(t, sound) {
		for _, cut := range []bool{false, true} {
			damaged := filepath.Join(dir, "damaged")
			copyTree(t, sound, damaged)
			rel, _ := filepath.Rel(sound, file)
			path := filepath.Join(damaged, rel)
			err := os.Remove(path)
			if cut {
				err = os.WriteFile(path, []byte("thaw"), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			left := map[string][]byte{}
			for name, img := range images {
				if cut || !strings.Contains(rel, "/"+name+".") {
					left[name] = img
				}
			}
			if _, report := readDamaged(t, damaged, left); report.OK() && len(left) == len(images) {
				t.Errorf("%s is gone or cut, and a check finds nothing", rel)
			}
			if err := os.RemoveAll(damaged); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A root that cannot be read keeps everything that it may need: nothing is taken for garbage.
func TestDamagedRootKeepsPacks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	damageStore(t, dir)
	root := filepath.Join(dir, rootsDirName, "one.0"+rootSuffix)
	sound, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	before := blobFiles(t, dir)
	if err := os.WriteFile(root, sound[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, indexDirName)); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, dir, nil)
	if _, err := s.GC(context.Background(), GCOptions{}); err == nil {
		t.Error("a collection went through")
	}
	s.Close()
	if after := blobFiles(t, dir); len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	if err := os.WriteFile(root, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	checkClean(t, s, true)
}

// Beside a reader a check lists anew what it finds damaged. That ends, whatever is wrong with a root.
func TestReaderChecksDamagedRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	damageStore(t, dir)
	if err := os.Truncate(filepath.Join(dir, rootsDirName, "one.0"+rootSuffix), 100); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rep, err := openReader(t, dir, nil).Check(ctx, CheckOptions{ReadData: true})
	if err != nil || len(rep.Lost) != 1 || rep.Lost[0].Checkpoint != "one" || !rep.Lost[0].All {
		t.Errorf("lost %+v, %v", rep.Lost, err)
	}
}

// What has the name of a root and is no file is a checkpoint that cannot be read, not one that there
// never was: a check tells, and nothing is collected.
func TestRootIsNoFile(t *testing.T) {
	for kind, place := range map[string]func(root, aside string) error{
		"directory": func(root, _ string) error { return os.Mkdir(root, 0o700) },
		"link":      func(root, aside string) error { return os.Symlink(aside, root) },
		"dangling":  func(root, _ string) error { return os.Symlink("nowhere", root) },
	} {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			damageStore(t, dir)
			root := filepath.Join(dir, rootsDirName, "one.0"+rootSuffix)
			aside := filepath.Join(t.TempDir(), "aside")
			if err := errors.Join(os.Rename(root, aside), place(root, aside)); err != nil {
				t.Fatal(err)
			}
			rep, err := openReader(t, dir, nil).Check(t.Context(), CheckOptions{})
			if err != nil || len(rep.Lost) != 1 || !rep.Lost[0].All {
				t.Errorf("lost %+v, %v", rep.Lost, err)
			}
			s := openTest(t, dir, nil)
			if _, err := s.GC(t.Context(), GCOptions{}); err == nil {
				t.Error("a collection went through")
			}
			if err := s.Remove(t.Context(), "one"); err == nil {
				t.Error("it is said to be removed, and is there")
			}
			s.Close()
			if err := errors.Join(os.Remove(root), os.Rename(aside, root)); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, dir, nil)
			checkClean(t, s, true)
		})
	}
}
