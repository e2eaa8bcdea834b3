package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

// fork is a store and another one in which the same pack numbers stand for other packs.
type fork struct {
	dir, other string
	images     map[string][]byte // in dir
	others     map[string][]byte // in other
}

// forkImports imports into a store a checkpoint with a working set, whose pages fill several packs, and one
// that has nothing new but a file.
func forkImports(t *testing.T, dir, name string, base []byte, r *rand.Rand) map[string][]byte {
	t.Helper()
	s := openTest(t, dir, nil)
	defer s.Close()
	s.limits.packPages = 512
	img := make(testImage, 1500)
	for i := range img {
		img[i] = 1000 + r.Uint64()>>8
	}
	state := make([]byte, 700<<10)
	for i := range state {
		state[i] = byte(r.Uint32())
	}
	mustImport(t, s, name, writeSource(t, img.bytes(), nil), []Run{{10, 300}})
	mustImport(t, s, name+"-files", writeSource(t, base, map[string][]byte{"state": state}), nil)
	return map[string][]byte{name: img.bytes(), name + "-files": base, "base": base}
}

// makeFork makes both: other is a copy from before the last imports, or a store of its own.
func makeFork(t *testing.T, isCopy bool) fork {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 70))
	f := fork{dir: filepath.Join(t.TempDir(), "st"), other: filepath.Join(t.TempDir(), "other")}
	base := randomImage(r, 600).bytes()
	src := writeSource(t, base, nil)
	for _, dir := range []string{f.dir, f.other} {
		if dir == f.other && isCopy {
			copyTree(t, f.dir, f.other)
			break
		}
		s := openTest(t, dir, nil)
		mustImport(t, s, "base", src, nil)
		s.Close()
	}
	f.images = forkImports(t, f.dir, "x", base, r)
	f.others = forkImports(t, f.other, "y", base, r)
	return f
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// swap puts a pack of the other store into a copy of the store.
func (f fork) swap(t *testing.T, number uint64) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "st")
	copyTree(t, f.dir, dir)
	copyFile(t, filepath.Join(f.other, pack.Name(number, 0)), filepath.Join(dir, pack.Name(number, 0)))
	return dir
}

// listed returns the packs that a checkpoint lists and base does not, and the segment's.
func listed(t *testing.T, dir, name string) (numbers []uint64, segment uint64) {
	t.Helper()
	s := openTest(t, dir, nil)
	defer s.Close()
	base := s.entry("base")
	for _, n := range s.entry(name).packs {
		if _, both := searchUint64(base.packs, n); !both {
			numbers = append(numbers, n)
		}
	}
	return numbers, s.entry(name).segment
}

// A pack of the same number from a copy of the store, or from another store, is never served: its pages
// are errors, the others are right, and everything is right again when the right pack is put back.
func TestOtherPackInPlace(t *testing.T) {
	for name, isCopy := range map[string]bool{"copy": true, "another store": false} {
		t.Run(name, func(t *testing.T) {
			f := makeFork(t, isCopy)
			numbers, segment := listed(t, f.dir, "x")
			if len(numbers) < 4 || segment == 0 {
				t.Fatalf("packs %v, segment %d", numbers, segment)
			}
			for _, n := range numbers {
				f.swapped(t, n, n == segment)
			}
		})
	}
}

func (f fork) swapped(t *testing.T, number uint64, segment bool) {
	t.Helper()
	dir := f.swap(t, number)
	bad, report := readDamaged(t, dir, f.images)
	if report.OK() || (bad == 0) != segment || (len(report.Lost) == 0) != segment {
		t.Fatalf("pack %d: %d bad pages, %+v", number, bad, report)
	}
	for _, l := range report.Lost {
		if l.Checkpoint != "x" {
			t.Errorf("pack %d: %s has lost something", number, l.Checkpoint)
		}
	}
	s := openTest(t, dir, nil)
	defer s.Close()
	if _, err := s.GC(t.Context(), GCOptions{}); !errors.Is(err, ErrOtherPack) || !isCorrupt(err) {
		t.Errorf("pack %d: gc: %v", number, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := s.Export(t.Context(), "x", out, ExportOptions{}); (err == nil) != segment {
		t.Errorf("pack %d: export: %v", number, err)
	}
	if err := s.Export(t.Context(), "base", out+"-base", ExportOptions{}); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(f.images["x"]))
	if m, err := s.OpenImage(t.Context(), "x"); err == nil {
		if err := m.ReadRange(0, got); (err == nil) != segment {
			t.Errorf("pack %d: ReadRange: %v", number, err)
		}
		m.Close()
	}
	// A new checkpoint does not build on it.
	mustImport(t, s, "again", writeSource(t, f.images["x"], nil), nil)
	m := openImage(t, s, "again")
	sameImage(t, m, f.images["x"])
	m.Close()
	repairIt(t, s)
	s.Close()
	if segment {
		s = openTest(t, dir, nil)
		checkClean(t, s, true)
		s.Close()
		return
	}
	copyFile(t, filepath.Join(f.dir, pack.Name(number, 0)), filepath.Join(dir, pack.Name(number, 0)))
	s = openTest(t, dir, nil)
	defer s.Close()
	checkClean(t, s, true)
	for _, name := range []string{"x", "again"} {
		m := openImage(t, s, name)
		sameImage(t, m, f.images["x"])
		m.Close()
	}
}

// A reader does not serve another pack either, and needs no new start when the right one is put back.
func TestReaderOfOtherPack(t *testing.T) {
	f := makeFork(t, true)
	numbers, segment := listed(t, f.dir, "x")
	for _, n := range numbers {
		dir := f.swap(t, n)
		s, err := Open(t.Context(), dir, OpenOptions{ReadOnly: true, Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		report, err := s.Check(t.Context(), CheckOptions{})
		if err != nil || report.OK() || (len(report.Lost) == 0) != (n == segment) {
			t.Errorf("pack %d: %+v, %v", n, report, err)
		}
		bad := 0
		if m, err := s.OpenImage(t.Context(), "x"); err == nil {
			bad = readDamagedImage(t, m, f.images["x"])
			m.Close()
		} else if errors.Is(err, ErrOtherPack) {
			bad = len(f.images["x"]) / PageSize
		} else {
			t.Error(err)
		}
		if (bad == 0) != (n == segment) {
			t.Errorf("pack %d: %d bad pages", n, bad)
		}
		copyFile(t, filepath.Join(f.dir, pack.Name(n, 0)), filepath.Join(dir, pack.Name(n, 0)))
		m := openImage(t, s, "x")
		sameImage(t, m, f.images["x"])
		m.Close()
		checkClean(t, s, true)
	}
}

// A pack that has only a file in it.
func TestOtherPackOfRecords(t *testing.T) {
	f := makeFork(t, true)
	numbers, _ := listed(t, f.dir, "x-files")
	if len(numbers) != 1 {
		t.Fatalf("packs %v", numbers)
	}
	dir := f.swap(t, numbers[0])
	_, report := readDamaged(t, dir, f.images)
	if len(report.Lost) != 1 || len(report.Lost[0].Files) != 1 || report.Lost[0].Checkpoint != "x-files" {
		t.Fatalf("%+v", report)
	}
	s := openTest(t, dir, nil)
	defer s.Close()
	if b, err := s.ReadFile(t.Context(), "x-files", "state"); !errors.Is(err, ErrOtherPack) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := s.GC(t.Context(), GCOptions{}); !errors.Is(err, ErrOtherPack) {
		t.Errorf("gc: %v", err)
	}
}

// Two checkpoints that mean different packs of one number share no open pack: only one of them has lost
// something, whichever comes first.
func TestCheckpointsMeanDifferentPacks(t *testing.T) {
	f := makeFork(t, true)
	numbers, _ := listed(t, f.dir, "x")
	copyFile(t, filepath.Join(f.other, rootName("y", 0)), filepath.Join(f.dir, rootName("y", 0)))
	for _, n := range numbers {
		copyFile(t, filepath.Join(f.other, pack.Name(n, 0)), filepath.Join(f.dir, pack.Name(n, 0)))
	}
	s := openTest(t, f.dir, nil)
	defer s.Close()
	m := openImage(t, s, "y")
	defer m.Close()
	if x, err := s.OpenImage(t.Context(), "x"); !errors.Is(err, ErrOtherPack) {
		t.Errorf("%v, %v", x, err)
	}
	sameImage(t, m, f.others["y"])
	report, err := s.Check(t.Context(), CheckOptions{ReadData: true})
	if err != nil || len(report.Lost) != 1 || report.Lost[0].Checkpoint != "x" {
		t.Errorf("%+v, %v", report, err)
	}
}

// A pack of another store with a higher generation does not replace the right one.
func TestOtherPackBeside(t *testing.T) {
	f := makeFork(t, true)
	numbers, _ := listed(t, f.dir, "x")
	for _, n := range numbers {
		renameGeneration(t, f.other, f.dir, n)
	}
	s := openTest(t, f.dir, nil)
	defer s.Close()
	m := openImage(t, s, "x")
	sameImage(t, m, f.images["x"])
	m.Close()
	s.Close()
	for _, n := range numbers {
		if _, err := os.Stat(filepath.Join(f.dir, pack.Name(n, 0))); err != nil {
			t.Error(err)
		}
	}
}

// renameGeneration puts a pack into another store as its generation 1.
func renameGeneration(t *testing.T, from, to string, number uint64) {
	t.Helper()
	src, dst := openTest(t, from, nil), openTest(t, to, nil)
	defer src.Close()
	defer dst.Close()
	old, err := src.packs.openBlob(t.Context(), number, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	bw, err := dst.blobs.Create(t.Context(), pack.Name(number, 1))
	if err != nil {
		t.Fatal(err)
	}
	w, err := pack.NewWriter(bw, number, 1)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := pack.NewEncoder(pack.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	if err := pack.Rewrite(t.Context(), old, w, enc, src.key, pack.Keep{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

// packIDs opens all packs of a store.
func packIDs(t *testing.T, s *Store) map[uint64]uint64 {
	t.Helper()
	numbers, _ := s.packs.numbers()
	ids, err := s.packs.ids(t.Context(), numbers)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// A pack keeps its identity when it is compacted.
func TestCollectKeepsIdentity(t *testing.T) {
	dir := t.TempDir()
	images := damageStore(t, dir)
	s := openTest(t, dir, nil)
	before := packIDs(t, s)
	seen := map[uint64]bool{0: true}
	for n, id := range before {
		if seen[id] {
			t.Errorf("pack %d: identity %x", n, id)
		}
		seen[id] = true
	}
	img := openImage(t, s, "two")
	mustImport(t, s, "few", writeSource(t, images["one"][:400*PageSize], nil), nil)
	img.Close()
	for _, name := range []string{"one", "two"} {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := s.GC(t.Context(), GCOptions{})
	if err != nil || rep.RewrittenPacks == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	s.Close()
	s = openTest(t, dir, nil)
	for n, id := range packIDs(t, s) {
		if was, ok := before[n]; ok && was != id {
			t.Errorf("pack %d: identity %x became %x", n, was, id)
		}
	}
	checkClean(t, s, true)
	m := openImage(t, s, "few")
	defer m.Close()
	sameImage(t, m, images["one"][:400*PageSize])
}

// forgetIDs makes a store one of an older program, which gave no identities.
func forgetIDs(t *testing.T, dir string) {
	t.Helper()
	s := openTest(t, dir, nil)
	defer s.Close()
	for name, e := range s.cat.m {
		r, err := s.readRoot(t.Context(), name, e.Generation)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.blobs.Remove(t.Context(), rootName(name, e.Generation)); err != nil {
			t.Fatal(err)
		}
		r.top.ids = nil
		if err := r.write(t.Context(), s.blobs); err != nil {
			t.Fatal(err)
		}
	}
	numbers, _ := s.packs.numbers()
	for _, n := range numbers {
		path := filepath.Join(dir, pack.Name(n, 0))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		foot := b[len(b)-96:]
		clear(foot[72:80])
		binary.LittleEndian.PutUint32(foot[84:], crc32.Checksum(foot[:84], crc32.MakeTable(crc32.Castagnoli)))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A pack without an identity does not become one that has one under a writer, which refers to its pages.
func TestPackWithoutIdentityStays(t *testing.T) {
	f := makeFork(t, false)
	forgetIDs(t, f.dir)
	numbers, _ := listed(t, f.dir, "x")
	n := numbers[0]
	s := openTest(t, f.dir, nil)
	if id, err := s.packs.id(t.Context(), n); err != nil || id != 0 {
		t.Fatalf("identity %x, %v", id, err)
	}
	copyFile(t, filepath.Join(f.other, pack.Name(n, 0)), filepath.Join(f.dir, pack.Name(n, 0)))
	if _, done, err := s.packs.use(t.Context(), n, 0); !errors.Is(err, ErrOtherPack) {
		t.Errorf("another pack in its place: %v", err)
		if err == nil {
			done()
		}
	}
}

// A store without identities is read, written and collected as before.
func TestStoreWithoutIdentities(t *testing.T) {
	dir := t.TempDir()
	images := damageStore(t, dir)
	forgetIDs(t, dir)
	s := openTest(t, dir, nil)
	for n, id := range packIDs(t, s) {
		if id != 0 {
			t.Errorf("pack %d has the identity %x", n, id)
		}
	}
	checkClean(t, s, true)
	if _, err := s.SetWorkingSet(t.Context(), "two", []byte("0 5\n"), []Run{{0, 5}}); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(images["one"])
	fillPage(changed[:PageSize], 4711)
	mustImport(t, s, "three", writeSource(t, changed, nil), nil)
	if err := s.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openTest(t, dir, nil)
	checkClean(t, s, true)
	two := s.entry("two")
	if len(two.ids) != 1 || two.ids[two.segment] == 0 {
		t.Errorf("identities %v, segment %d", two.ids, two.segment)
	}
	for name, want := range map[string][]byte{"two": images["two"], "three": changed} {
		m := openImage(t, s, name)
		sameImage(t, m, want)
		m.Close()
	}
}
