package index

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
	"golang.org/x/sys/unix"
)

func TestImportReadExport(t *testing.T) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(1, 1))
	img := randomImage(r, 1500).bytes()
	state := make([]byte, 3*filePartSize+777)
	for i := range state {
		state[i] = byte(i / 1000)
	}
	files := map[string][]byte{
		"state": state, "working-set": []byte("thaw-working-set 1\n"), "empty": nil,
		"info.json": []byte("{\n  \"vmm\": \"test\"\n}\n"),
	}
	s := openTest(t, t.TempDir()+"/store", nil)
	set := []Run{{700, 30}, {3, 1}, {705, 60}, {1499, 1}}
	c, st := mustImport(t, s, "one", writeSource(t, img, files), set)
	if c.Layout != LayoutTrace || c.WorkingSet == nil || c.WorkingSet.Pages != 67 {
		t.Errorf("checkpoint %+v", c)
	}
	if string(c.Guest) != string(files["info.json"]) {
		t.Errorf("guest %q", c.Guest)
	}
	if st.NewPages+st.DupPages+st.ZeroPages != 1500 {
		t.Errorf("stats %+v", st)
	}
	m := openImage(t, s, "one")
	defer m.Close()
	sameImage(t, m, img)
	sameWorkingSet(t, m, img, []Run{{700, 30}, {3, 1}, {730, 35}, {1499, 1}})
	out := filepath.Join(t.TempDir(), "out")
	if err := s.Export(ctx, "one", out, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	files["memory"] = img
	sameDir(t, out, files)
	if err := s.Export(ctx, "one", out, ExportOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("export over a directory: %v", err)
	}
	got, err := s.ReadFile(ctx, "one", "state")
	if err != nil || !bytes.Equal(got, state) {
		t.Errorf("state: %v", err)
	}
	if _, err := s.ReadFile(ctx, "one", "nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	checkClean(t, s, true)
}

// sameWorkingSet checks the feed and the runs of a working set.
func sameWorkingSet(t testing.TB, m *Image, img []byte, want []Run) {
	t.Helper()
	if d := cmp.Diff(want, m.WorkingSet()); d != "" {
		t.Errorf("working set: %s", d)
	}
	seen := map[uint64]int{}
	var p Piece
	feed := m.WorkingSetFeed()
	for i := range feed.Len() {
		if err := ReadPiece(context.Background(), feed, i, &p); err != nil {
			t.Fatal(err)
		}
		comparePiece(t, &p, img, seen)
		if got := feed.GFNs(i, []uint64{7})[1:]; !slices.Equal(got, p.GFNs) {
			t.Errorf("piece %d has pages %d, it should have %d", i, p.GFNs, got)
		}
	}
	eachPage(want, func(gfn uint64) {
		if seen[gfn] != 1 {
			t.Errorf("page %d comes %d times in the working set", gfn, seen[gfn])
		}
		delete(seen, gfn)
	})
	if len(seen) > 0 {
		t.Errorf("%d pages too many in the working set", len(seen))
	}
}

func sameDir(t testing.TB, dir string, want map[string][]byte) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := want[e.Name()]; !ok || !bytes.Equal(b, w) {
			t.Errorf("%s differs (expected: %v)", e.Name(), ok)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d files, want %d", len(entries), len(want))
	}
}

func TestSecondCheckpointShares(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	img := randomImage(r, 20000)
	later := img.change(r, 60)
	changed, compressed := 0, 0
	page := make([]byte, PageSize)
	for i := range img {
		if img[i] != later[i] && later[i] != 0 {
			changed++
			fillPage(page, later[i])
			compressed += min(len(s2.Encode(nil, page)), PageSize)
		}
	}
	s := openTest(t, t.TempDir()+"/store", nil)
	mustImport(t, s, "one", writeSource(t, img.bytes(), nil), nil)
	c, st := mustImport(t, s, "two", writeSource(t, later.bytes(), nil), nil)
	if int(st.NewPages) != changed || c.Parent != "one" {
		t.Errorf("%d new pages of %d changed, parent %q", st.NewPages, changed, c.Parent)
	}
	// What a checkpoint costs beyond its pages is fixed, but for the hashes.
	if limit := int64(compressed)*105/100 + 4<<10; st.StoredBytes > limit {
		t.Errorf("%d changed pages (%d bytes) took %d bytes, more than %d",
			changed, compressed, st.StoredBytes, limit)
	}
	c, st = mustImport(t, s, "three", writeSource(t, later.bytes(), nil), nil)
	if st.NewPages != 0 || st.NewLeaves > st.SharedLeaves || c.StoredBytes > 4<<10 {
		t.Errorf("the same again: %+v", st)
	}
	for name, want := range map[string]testImage{"one": img, "two": later, "three": later} {
		m := openImage(t, s, name)
		sameImage(t, m, want.bytes())
		m.Close()
	}
	checkClean(t, s, true)
}

func TestErrors(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := openTest(t, dir+"/store", nil)
	img := make([]byte, 4*PageSize)
	img[0] = 1
	src := writeSource(t, img, nil)
	mustImport(t, s, "one", src, nil)

	lies := []string{"", "..", ".", "a/b", "-x", ".x", "a\x00b", "a\nb", "clones",
		strings.Repeat("x", 129)}
	for _, name := range lies {
		var ne *NameError
		if _, _, err := s.Import(ctx, src, ImportOptions{Name: name}); !errors.As(err, &ne) {
			t.Errorf("import as %q: %v", name, err)
		}
		if _, err := s.OpenImage(ctx, name); !errors.As(err, &ne) {
			t.Errorf("open %q: %v", name, err)
		}
		if err := s.Remove(ctx, name); !errors.As(err, &ne) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	if _, _, err := s.Import(ctx, src, ImportOptions{Name: "one"}); !errors.Is(err, ErrExists) {
		t.Errorf("import twice: %v", err)
	}
	if _, _, err := s.Import(ctx, src, ImportOptions{Name: "two", WorkingSet: []Run{{3, 2}}}); err == nil {
		t.Error("a working set beyond the end was taken")
	}
	for _, err := range []error{
		s.Remove(ctx, "none"), s.Export(ctx, "none", dir+"/x", ExportOptions{}), s.DropCaches(ctx, "none"),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("a checkpoint that is not there: %v", err)
		}
	}
	m := openImage(t, s, "one")
	if err := s.Remove(ctx, "one"); !errors.Is(err, ErrInUse) {
		t.Errorf("remove an open one: %v", err)
	}
	page := make([]byte, PageSize)
	if err := m.ReadPage(4, page); err == nil {
		t.Error("read beyond the end")
	}
	if err := m.ReadRange(3, make([]byte, 2*PageSize)); err == nil {
		t.Error("read range beyond the end")
	}
	m.Close()
	if _, err := Open(ctx, dir+"/store", OpenOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("open twice: %v", err)
	}
	if err := s.DropCaches(ctx, "one"); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, "one"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.List(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestSourceErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, n int) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, make([]byte, n), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "dir")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{write("zero", 0), write("odd", PageSize+1), fifo, empty, "/dev/zero"} {
		var ie *ImageError
		if _, err := OpenSource(path); !errors.As(err, &ie) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := OpenSource(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path that is not there: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for _, d := range []string{dir, dir + "/none"} {
		if _, err := Open(ctx, d, OpenOptions{}); !errors.Is(err, ErrNotStore) {
			t.Errorf("open %s: %v", d, err)
		}
	}
	if err := os.WriteFile(dir+"/other", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, dir, OpenOptions{Create: true}); !errors.Is(err, ErrNotStore) {
		t.Errorf("create in a directory with other things: %v", err)
	}
	later := []byte(`{"magic":"thaw-store","version":99}`)
	if err := os.WriteFile(dir+"/"+storeFileName, later, 0o644); err != nil {
		t.Fatal(err)
	}
	var ve *VersionError
	if _, err := Open(ctx, dir, OpenOptions{}); !errors.As(err, &ve) || ve.Got != 99 {
		t.Errorf("a store of the future: %v", err)
	}
}

// A mount's info.json is the store's; what the VMM had written is inside of it.
func TestImportOfExportedManifest(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/store", nil)
	img := make([]byte, 4*PageSize)
	guest := []byte(`{"vmm":"x"}`)
	c, _ := mustImport(t, s, "one", writeSource(t, img, map[string][]byte{"info.json": guest}), nil)
	if c.ZeroPages != 4 {
		t.Errorf("%+v", c)
	}
	manifest := mustJSON(t, c)
	c, _ = mustImport(t, s, "two", writeSource(t, img, map[string][]byte{"info.json": manifest}), nil)
	if string(c.Guest) != string(guest) {
		t.Errorf("guest %s", c.Guest)
	}
	d, err := s.Inspect(ctx, "two")
	if err != nil || d.Leaves != 0 || d.Name != "two" {
		t.Errorf("%+v, %v", d, err)
	}
}

// A hash key that is not what was written is damage of the store's file, not of every page.
func TestDamagedHashKey(t *testing.T) {
	dir := t.TempDir() + "/store"
	s := openTest(t, dir, nil)
	mustImport(t, s, "one", writeSource(t, bytes.Repeat([]byte{7}, 3*PageSize), nil), nil)
	s.Close()
	path := filepath.Join(dir, storeFileName)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(sound)
	at := bytes.Index(damaged, []byte(`"hash_key": "`)) + len(`"hash_key": "`)
	damaged[at] = "10"[damaged[at]&1] // another digit
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		var ce *CorruptError
		if _, err := Open(t.Context(), dir, OpenOptions{ReadOnly: readOnly}); !errors.As(err, &ce) {
			t.Errorf("a damaged key: %v", err)
		}
	}
	// A store that was made before there was a checksum.
	older := regexp.MustCompile(`\s*"hash_key_sum": "[0-9a-f]*",`).ReplaceAll(sound, nil)
	if err := os.WriteFile(path, older, 0o600); err != nil || bytes.Equal(older, sound) {
		t.Fatal(err)
	}
	checkClean(t, openTest(t, dir, nil), true)
}

// changedMemory gives all bytes, and an error that says that they are not to be believed.
type changedMemory struct{ *MemoryFile }

var errChangedMemory = errors.New("the file changed")

func (m changedMemory) ReadAt(p []byte, off int64) (int, error) {
	n, _ := m.MemoryFile.ReadAt(p, off)
	return n, errChangedMemory
}

func TestImportOfMemoryThatChanges(t *testing.T) {
	s := openTest(t, t.TempDir()+"/store", nil)
	src := writeSource(t, bytes.Repeat([]byte{7}, 3*PageSize), nil)
	f, err := OpenMemory(src.Memory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	src.Image = changedMemory{f}
	if _, _, err := s.Import(t.Context(), src, ImportOptions{Name: "one"}); !errors.Is(err, errChangedMemory) {
		t.Errorf("an image that changed was imported: %v", err)
	}
}
