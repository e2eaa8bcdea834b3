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
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

func openReader(t testing.TB, dir string, blobs blob.Store) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, OpenOptions{
		ReadOnly: true, Blobs: blobs, Log: testLog(t), Keys: keysFor(dir),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// tree returns what lies in a directory, with what would change if somebody wrote there.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		out[path] = fmt.Sprint(st.Ino, st.Size, st.Mtim, st.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// useReader does with a reader all that one can do, and checks that the rest is refused.
func useReader(t *testing.T, s *Store, name string, want []byte) {
	t.Helper()
	ctx := context.Background()
	if !s.readOnly {
		t.Error("it is no reader")
	}
	list, err := s.List(ctx)
	if err != nil || len(list) == 0 {
		t.Fatalf("list: %v, %v", list, err)
	}
	m := openImage(t, s, name)
	sameImage(t, m, want)
	m.Close()
	if _, err := s.Inspect(ctx, name); err != nil {
		t.Error(err)
	}
	if err := s.Export(ctx, name, filepath.Join(t.TempDir(), "out"), ExportOptions{}); err != nil {
		t.Error(err)
	}
	checkClean(t, s, true)
	src := writeSource(t, want, nil)
	_, _, ierr := s.Import(ctx, src, ImportOptions{Name: "more"})
	_, gerr := s.GC(ctx, GCOptions{})
	_, werr := s.SetWorkingSet(ctx, name, nil, []Run{{0, 1}})
	_, cerr := s.Check(ctx, CheckOptions{Rebuild: true})
	for i, err := range []error{ierr, gerr, werr, cerr, s.Remove(ctx, name)} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("what writes (%d) on a reader: %v", i, err)
		}
	}
}

func TestReaderWritesNothing(t *testing.T) {
	dir := t.TempDir() + "/store"
	want := randomImage(rand.New(rand.NewPCG(81, 1)), 800).bytes()
	s := openTest(t, dir, nil)
	mustImport(t, s, "one", writeSource(t, want, nil), []Run{{3, 90}})
	temp := filepath.Join(dir, "packs", ".tmp-1-1")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	r := openReader(t, dir, nil) // beside the writer
	useReader(t, r, "one", want)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if after := tree(t, dir); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("a reader wrote:\n%v\n%v", before, after)
	}
	s.Close()
	if err := os.RemoveAll(filepath.Join(dir, indexDirName)); err != nil {
		t.Fatal(err)
	}
	useReader(t, openReader(t, dir, nil), "one", want) // without an index at all
}

func TestReaderOfReadOnlyFileSystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts read-only")
	}
	dir, at := t.TempDir()+"/store", t.TempDir()
	want := randomImage(rand.New(rand.NewPCG(82, 1)), 500).bytes()
	s := openTest(t, dir, nil)
	mustImport(t, s, "one", writeSource(t, want, nil), nil)
	s.Close()
	if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
		t.Skip("needs to mount: ", err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, at, nil)
	useReader(t, r, "one", want)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(context.Background(), at, OpenOptions{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("open for writing: %v", err)
	}
	if _, err := LockServer(at, "/mnt"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("lock: %v", err)
	}
	if _, served, err := ServerOf(at); served || err != nil {
		t.Errorf("served %v, %v", served, err)
	}
}

// A reader sees what a writer did, and what it has open stays what it was.
func TestReaderFollowsWriter(t *testing.T) {
	ctx := context.Background()
	for name, blobs := range map[string]blob.Store{"dir": nil, "mem": blobtest.NewMem()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/store"
			rnd := rand.New(rand.NewPCG(83, 1))
			garbage := randomImage(rnd, 1500)
			base := garbage.change(rnd, 200)
			want := base.bytes()
			w := openTest(t, dir, blobs)
			r := openReader(t, dir, blobs)
			mustImport(t, w, "garbage", writeSource(t, garbage.bytes(), nil), nil)
			src := writeSource(t, want, map[string][]byte{"state": []byte("old")})
			c, _ := mustImport(t, w, "base", src, []Run{{50, 600}})
			m := openImage(t, r, "base") // found without being told
			f, err := r.OpenFile(ctx, "base", "state")
			if err != nil {
				t.Fatal(err)
			}
			if list, err := r.List(ctx); err != nil || len(list) != 2 {
				t.Fatalf("%v, %v", list, err)
			}
			if err := w.Remove(ctx, "garbage"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.SetWorkingSet(ctx, "base", []byte("x"), []Run{{5, 40}}); err != nil {
				t.Fatal(err)
			}
			if rep, err := w.GC(ctx, GCOptions{}); err != nil || rep.RewrittenPacks == 0 {
				t.Fatalf("%+v, %v", rep, err)
			}
			// The catalog of the reader is of before all that.
			n, err := r.OpenImageOf(ctx, c.Version())
			if err != nil {
				t.Fatal(err)
			}
			sameImage(t, n, want)
			sameWorkingSet(t, n, want, []Run{{5, 40}})
			sameImage(t, m, want)
			sameWorkingSet(t, m, want, []Run{{50, 600}})
			checkClean(t, r, true)

			// Another checkpoint under the name is another one, however it is asked for.
			if err := w.Remove(ctx, "base"); err != nil {
				t.Fatal(err)
			}
			src = writeSource(t, want, map[string][]byte{"state": []byte("new")})
			mustImport(t, w, "base", src, []Run{{50, 600}})
			if _, err := w.GC(ctx, GCOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.OpenFileOf(ctx, c.Version(), "state"); !errors.Is(err, ErrChanged) {
				t.Errorf("a file of one that was replaced: %v", err)
			}
			if _, err := r.OpenImageOf(ctx, c.Version()); !errors.Is(err, ErrChanged) {
				t.Errorf("the memory of one that was replaced: %v", err)
			}
			if got, err := r.ReadFile(ctx, "base", "state"); err != nil || string(got) != "new" {
				t.Errorf("%q, %v", got, err)
			}
			old := make([]byte, 3)
			if _, err := f.ReadAt(old, 0); err != nil || string(old) != "old" {
				t.Errorf("%q, %v", old, err)
			}
			sameImage(t, m, want)
			sameImage(t, n, want)
			for _, c := range []interface{ Close() error }{m, n, f} {
				c.Close()
			}
			if err := w.Remove(ctx, "base"); err != nil {
				t.Fatal(err)
			}
			if _, err := r.OpenImage(ctx, "base"); !errors.Is(err, ErrNotFound) {
				t.Errorf("one that was removed: %v", err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The working set belongs to a generation, other files to the ID.
func TestOpenFileOf(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/store"
	w := openTest(t, dir, nil)
	img := randomImage(rand.New(rand.NewPCG(84, 1)), 50).bytes()
	files := map[string][]byte{"state": []byte("state"), "working-set": []byte("first")}
	c, _ := mustImport(t, w, "one", writeSource(t, img, files), []Run{{1, 5}})
	r := openReader(t, dir, nil)
	now, err := w.SetWorkingSet(ctx, "one", []byte("second"), []Run{{2, 5}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{r, w} {
		if _, err := s.OpenFileOf(ctx, c.Version(), "working-set"); !errors.Is(err, ErrChanged) {
			t.Errorf("the first working set: %v", err)
		}
		for file, want := range map[string]string{"state": "state", "working-set": "second"} {
			f, err := s.OpenFileOf(ctx, now.Version(), file)
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, f.Size())
			if _, err := f.ReadAt(b, 0); err != nil || string(b) != want {
				t.Errorf("%q, %v", b, err)
			}
			f.Close()
		}
		if f, err := s.OpenFileOf(ctx, c.Version(), "state"); err != nil {
			t.Errorf("a file that did not change: %v", err)
		} else {
			f.Close()
		}
		if _, err := s.OpenFileOf(ctx, Version{Name: "one"}, "state"); err == nil {
			t.Error("no ID is an ID")
		}
	}
}

// A reader that lists, opens and checks all the time beside a writer never sees a checkpoint that is
// not whole, and misses none.
func TestReaderBesideBusyWriter(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/store"
	rnd := rand.New(rand.NewPCG(85, 1))
	base := randomImage(rnd, 600)
	want := base.bytes()
	w := openTest(t, dir, nil)
	mustImport(t, w, "base", writeSource(t, want, nil), []Run{{50, 100}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 12 {
			img := base.change(rnd, 50)
			src := writeSource(t, img.bytes(), nil)
			if _, _, err := w.Import(ctx, src, ImportOptions{Name: "n"}); err != nil {
				t.Error(err)
			}
			if _, err := w.SetWorkingSet(ctx, "base", nil, []Run{{uint64(i), 60}}); err != nil {
				t.Error(err)
			}
			if err := w.Remove(ctx, "n"); err != nil {
				t.Error(err)
			}
			if _, err := w.GC(ctx, GCOptions{}); err != nil {
				t.Error(err)
			}
		}
	}()
	r := openReader(t, dir, nil)
	got := make([]byte, len(want))
	for round := 0; ; round++ {
		select {
		case <-done:
			if round == 0 {
				t.Error("the writer was done before the reader began")
			}
			checkClean(t, r, true)
			return
		default:
		}
		list, err := r.List(ctx)
		if err != nil || len(list) == 0 || list[0].Name != "base" {
			t.Fatalf("list %v, %v", list, err)
		}
		m, err := r.OpenImage(ctx, "base")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.ReadRange(0, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("base differs: %v", err)
		}
		m.Close()
		if m, err := r.OpenImage(ctx, "n"); err == nil {
			if err := m.ReadRange(0, got); err != nil {
				t.Error(err)
			}
			m.Close()
		} else if !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		checkClean(t, r, false)
	}
}
