package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// A lesson that was saved is loaded by the next server; what is no lesson is an error, and nothing hangs.
func TestLessons(t *testing.T) {
	l := lessons{store: t.TempDir()}
	id := strings.Repeat("ab", 32)
	if got, err := l.Load(id); err != nil || got != (fs.Lesson{}) {
		t.Errorf("in an empty store: %+v, %v", got, err)
	}
	for _, want := range []fs.Lesson{{Margin: 0.25, Missed: 1}, {Margin: 2, Spare: 1}} {
		if err := l.Save(id, want); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Load(id); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if e, err := os.ReadDir(filepath.Join(l.store, lessonsDir)); err != nil || len(e) != 1 {
		t.Errorf("%d files, %v", len(e), err)
	}
	path := filepath.Join(l.store, lessonsDir, id)
	for name, spoil := range map[string]func() error{
		"garbage":   func() error { return os.WriteFile(path, []byte("x"), 0o600) },
		"large":     func() error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
		"pipe":      func() error { return syscall.Mkfifo(path, 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
	} {
		os.Remove(path)
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Load(id); err == nil || got != (fs.Lesson{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, id := range []string{"", "..", "../x", "AB", strings.Repeat("a", 200)} {
		if err := l.Save(id, fs.Lesson{Margin: 1}); err == nil {
			t.Errorf("ID %q names a file", id)
		}
	}
}

// Lessons of checkpoints that are gone are removed, and no others; a store without any is fine.
func TestSweepLessons(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := index.Open(t.Context(), dir, index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := sweepLessons(t.Context(), dir, s); err != nil {
		t.Error(err)
	}
	memory := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(memory, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := index.OpenSource(memory)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := s.Import(t.Context(), src, index.ImportOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	l := lessons{store: dir}
	gone := strings.Repeat("0", len(c.ID))
	for _, id := range []string{c.ID, gone} {
		if err := l.Save(id, fs.Lesson{Margin: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweepLessons(t.Context(), dir, s); err != nil {
		t.Error(err)
	}
	if got, _ := l.Load(c.ID); got.Margin != 1 {
		t.Error("the lesson of a checkpoint that is there was removed")
	}
	if got, _ := l.Load(gone); got != (fs.Lesson{}) {
		t.Error("the lesson of a checkpoint that is gone is still there")
	}
	if r, err := s.Check(t.Context(), index.CheckOptions{}); err != nil || len(r.Problems) > 0 {
		t.Errorf("check: %+v, %v", r.Problems, err)
	}
}

// A directory of lessons that is a link leads a server nowhere, and a sweep removes lessons only.
func TestLessonsStayInTheStore(t *testing.T) {
	store, other := filepath.Join(t.TempDir(), "store"), t.TempDir()
	s, err := index.Open(t.Context(), store, index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := strings.Repeat("ab", 32)
	for _, name := range []string{id, "notes"} {
		if err := os.WriteFile(filepath.Join(other, name), []byte(`{"margin":1}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, filepath.Join(store, lessonsDir)); err != nil {
		t.Fatal(err)
	}
	l := lessons{store: store}
	if got, err := l.Load(id); err == nil || got != (fs.Lesson{}) {
		t.Errorf("through a link: %+v, %v", got, err)
	}
	if err := l.Save(strings.Repeat("cd", 32), fs.Lesson{Margin: 1}); err == nil {
		t.Error("saved through a link")
	}
	if err := sweepLessons(t.Context(), store, s); err == nil {
		t.Error("swept through a link")
	}
	if e, err := os.ReadDir(other); err != nil || len(e) != 2 {
		t.Errorf("%d files are left, %v", len(e), err)
	}
	if err := os.Remove(filepath.Join(store, lessonsDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, filepath.Join(store, lessonsDir)); err != nil {
		t.Fatal(err)
	}
	if err := sweepLessons(t.Context(), store, s); err != nil {
		t.Error(err)
	}
	e, err := os.ReadDir(filepath.Join(store, lessonsDir))
	if err != nil || len(e) != 1 || e[0].Name() != "notes" {
		t.Errorf("left: %v, %v", e, err)
	}
}

// What the flag prints, it reads; the server of --daemon gets it so.
func TestFillFlag(t *testing.T) {
	for text, want := range map[string]fillFlag{
		"0": {}, "default": {rate: defaultFill}, "64MiB": {rate: 64 << 20, large: true},
		"1.5KiB": {rate: 1536, large: true},
	} {
		var f, again fillFlag
		if err := f.Set(text); err != nil || f != want {
			t.Errorf("%s: %+v, %v", text, f, err)
		}
		if err := again.Set(f.String()); err != nil || again != f {
			t.Errorf("%s prints %s, which is %+v, %v", text, f.String(), again, err)
		}
	}
	var f fillFlag
	if err := f.Set("fast"); err == nil {
		t.Errorf("fast: %+v", f)
	}
}
