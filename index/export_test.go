package index

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// exportDespite exports a checkpoint of a store that may be damaged. Without salvage: right and
// whole, or an error and nothing at all. With it: right but for what is said to be missing. must says
// which pages have to be there.
func exportDespite(t *testing.T, s *Store, name string, want []byte, files map[string][]byte,
	must func(gfn uint64) bool) *ExportError {
	t.Helper()
	parent := t.TempDir()
	dir := filepath.Join(parent, "out")
	err := s.Export(t.Context(), name, dir, ExportOptions{})
	var damage *ExportError
	if err == nil {
		all := map[string][]byte{"memory": want}
		for f, b := range files {
			all[f] = b
		}
		sameDir(t, dir, all)
		return nil
	}
	if !errors.As(err, &damage) || !isDamage(err) || damage.Salvaged != "" {
		t.Fatalf("export: %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Fatalf("a failed export left %v, %v", left, err)
	}
	err = s.Export(t.Context(), name, dir, ExportOptions{Salvage: true})
	if !errors.As(err, &damage) {
		t.Fatalf("salvage: %v", err)
	}
	if damage.Salvaged == "" {
		if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
			t.Fatalf("nothing was salvaged, and there is %v, %v", left, err)
		}
		return damage
	}
	sameSalvaged(t, dir, want, files, damage, must)
	return damage
}

func sameSalvaged(t *testing.T, dir string, want []byte, files map[string][]byte,
	damage *ExportError, must func(gfn uint64) bool) {
	t.Helper()
	read := func(name string) []byte {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
		return b
	}
	var holes Holes
	if err := json.Unmarshal(read("holes.json"), &holes); err != nil {
		t.Fatal(err)
	}
	if holes.Format != HolesFormat || holes.Why == "" || holes.LostPages != damage.Pages ||
		countPages(holes.Memory) != damage.Pages || holes.MemoryBytes != int64(len(want)) {
		t.Fatalf("%+v, error %+v", holes, damage)
	}
	expect := bytes.Clone(want)
	eachPage(holes.Memory, func(gfn uint64) {
		clear(expect[gfn*PageSize:][:PageSize])
		if must(gfn) {
			t.Fatalf("page %d can be read, and is among the holes", gfn)
		}
	})
	if !bytes.Equal(read("memory.salvaged"), expect) {
		t.Fatal("other bytes than those that are there")
	}
	names := []string{"holes.json", "memory.salvaged"}
	for name, b := range files {
		if lost, damaged := holes.Files[name]; damaged {
			name += salvagedSuffix
			b = bytes.Clone(b)
			for _, h := range lost {
				clear(b[h.Offset:][:h.Bytes])
			}
		}
		if !bytes.Equal(read(name), b) {
			t.Fatalf("%s has other bytes", name)
		}
		names = append(names, name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for i, e := range entries {
		if i >= len(names) || e.Name() != names[i] {
			t.Fatalf("%v in the directory, want %v", entries, names)
		}
	}
}

// What is exported of a ruined store is right, or said to be missing.
func TestExportRuined(t *testing.T) {
	sound := filepath.Join(t.TempDir(), "sound")
	r := rand.New(rand.NewPCG(84, 1))
	images := ruinStore(t, sound, r)
	s := openTest(t, sound, nil)
	all, key := ruins(s.key), s.key
	s.Close()
	all = append(all, ruin{"pages in each other's place", func(t *testing.T, _ *rand.Rand, dir string) {
		rewritePack(t, dir, shiftPages)
	}})
	damaged := 0
	for _, how := range all {
		for round := range 3 {
			t.Run(fmt.Sprintf("%s %d", how.name, round), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "store")
				copyTree(t, sound, dir)
				if round > 0 {
					coolPack(t, dir, key)
				}
				how.do(t, r, dir)
				s, err := Open(t.Context(), dir, OpenOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				for name, img := range images {
					want := img.bytes()
					m := openImage(t, s, name)
					page := make([]byte, PageSize)
					d := exportDespite(t, s, name, want, nil, func(gfn uint64) bool {
						return m.ReadPage(gfn, page) == nil && bytes.Equal(page, want[gfn*PageSize:][:PageSize])
					})
					if d != nil {
						damaged++
					}
					m.Close()
				}
			})
		}
	}
	if damaged < 10 {
		t.Errorf("%d damaged exports", damaged)
	}
}

// shiftPages copies a pack with the pages of each block in one another's place, and right checksums:
// nothing but their hashes tells.
func shiftPages(old *pack.Reader, w *pack.Writer) error {
	enc, err := pack.NewEncoder(pack.ProfileDefault)
	if err != nil {
		return err
	}
	hashes, err := old.Hashes()
	if err != nil {
		return err
	}
	for b := range old.Blocks() {
		first, n := old.BlockSlots(b)
		buf := make([]byte, int(n)*PageSize)
		var bad pack.BadSlots
		old.ReadSlots(first, buf, &bad)
		pages := slices.Collect(slices.Chunk(buf, PageSize))
		var eb pack.EncodedBlock
		if err := enc.EncodeBlock(&eb, append(pages[1:], pages[0])); err != nil {
			return err
		}
		if _, err := w.AppendBlock(&eb, hashes[first:first+n]); err != nil {
			return err
		}
	}
	return nil
}

// What the segment has need not be lost with the pack.
func TestExportFromSegment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	r := rand.New(rand.NewPCG(85, 1))
	images := ruinStore(t, dir, r)
	s := openTest(t, dir, nil)
	defer s.Close()
	m := openImage(t, s, "one")
	set := gfnSet{}
	eachPage(m.WorkingSet(), func(gfn uint64) { set.add(gfn) })
	m.Close()
	rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
		enc, err := pack.NewEncoder(pack.ProfileDefault)
		if err != nil {
			return err
		}
		return pack.Rewrite(t.Context(), old, w, enc, s.key,
			pack.Keep{Slot: func(slot uint32) bool { return slot%3 > 0 }})
	})
	s.Close()
	s, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// All of one is in its segment, and of two about a half.
	if d := exportDespite(t, s, "one", images["one"].bytes(), nil, nil); d != nil {
		t.Errorf("the segment has every page: %v", d)
	}
	m = openImage(t, s, "two")
	defer m.Close()
	two := gfnSet{}
	eachPage(m.WorkingSet(), func(gfn uint64) { two.add(gfn) })
	if d := exportDespite(t, s, "two", images["two"].bytes(), nil, two.has); d == nil {
		t.Error("pages are lost, and the export is whole")
	}
}

// Damage in a file, or in the page map.
func TestExportRuinedRecords(t *testing.T) {
	sound := filepath.Join(t.TempDir(), "sound")
	r := rand.New(rand.NewPCG(86, 1))
	img, set := scattered(r, 1200)
	files := map[string][]byte{"state": make([]byte, 3*filePartSize+100), "info.json": []byte("{}")}
	for i := range files["state"] {
		files["state"][i] = byte(r.Uint32() >> 7)
	}
	s := openTest(t, sound, nil)
	order := []Group{{GroupUsed, set}} // so that the leaves are long, and records
	if _, _, err := s.Import(t.Context(), writeSource(t, img.bytes(), files),
		ImportOptions{Name: "a", Order: order}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, kind := range []uint32{kindFile, kindLeaf, kindBranch} {
		dir := filepath.Join(t.TempDir(), "store")
		copyTree(t, sound, dir)
		rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
			n := 0
			return copyPack(old, w, old.Slots(), func(k uint32) uint32 {
				if k == kind {
					if n++; n == 2 || kind == kindBranch {
						return k + 40
					}
				}
				return k
			})
		})
		s, err := Open(t.Context(), dir, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		lost := func(uint64) bool { return false }
		d := exportDespite(t, s, "a", img.bytes(), files, lost)
		want := map[uint32]uint64{kindFile: 0, kindLeaf: LeafPages, kindBranch: 1200}[kind]
		if d == nil || d.Pages != want || len(d.Files) != map[bool]int{true: 1}[kind == kindFile] {
			t.Errorf("record of kind %d: %+v", kind, d)
		}
		s.Close()
	}
}

// What a killed export left goes; what another writes stays. Everything is its owner's only.
func TestExportWorkDirs(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", nil)
	defer s.Close()
	mustImport(t, s, "a", writeSource(t, uniqueImage(20).bytes(), map[string][]byte{"state": {1}}), nil)
	parent := t.TempDir()
	killed := filepath.Join(parent, workDirPrefix+"123")
	if err := os.MkdirAll(killed+"/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed, "memory"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	working, err := newWorkDir(parent) // which sweeps
	if err != nil {
		t.Fatal(err)
	}
	defer working.discard()
	if err := s.Export(t.Context(), "a", filepath.Join(parent, "out"), ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(killed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
	if _, err := os.Stat(working.path); err != nil {
		t.Errorf("another's work is gone: %v", err)
	}
	for name, mode := range map[string]os.FileMode{
		"out": os.ModeDir | 0o700, "out/memory": 0o600, "out/state": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(parent, name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(parent, "out"), &st); err != nil || st.Nlink != 2 {
		t.Errorf("%+v, %v", st, err)
	}
}
