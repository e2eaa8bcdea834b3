package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/seal"
)

// What restores teach about a sealed store does not show in its files, cannot be changed, and comes back.
func TestSealedLessons(t *testing.T) {
	_, vault := seal.New(seal.NewKey())
	l := lessons{t.TempDir(), vault}
	id := strings.Repeat("ab", 16)
	runs := []fs.PageRun{{First: 123456, Count: 777}}
	if err := l.SaveAsked(id, runs); err != nil {
		t.Fatal(err)
	}
	lesson := fs.Lesson{Margin: 0.5}
	if err := l.Save(id, lesson); err != nil {
		t.Fatal(err)
	}
	if err := l.SaveLearned(id, []byte("thaw-learned")); err != nil {
		t.Fatal(err)
	}
	if got := l.seen(index.Checkpoint{ID: id}); len(got) != 1 || got[0] != (index.Run{GFN: 123456, Count: 777}) {
		t.Errorf("%v", got)
	}
	if _, err := l.Load(id); err != nil {
		t.Error(err)
	}
	dir := filepath.Join(l.store, lessonsDir)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, shown := range []string{"123456", "thaw-learned", "777"} {
			if bytes.Contains(b, []byte(shown)) {
				t.Errorf("%s shows %s", f.Name(), shown)
			}
		}
	}
	// Another file in the place of one, or one that was changed, is not read.
	asked, learned := filepath.Join(dir, id+askedSuffix), filepath.Join(dir, id+learnedSuffix)
	b, err := os.ReadFile(asked)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(learned, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.LoadLearned(id); err == nil {
		t.Error("another file is read")
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(asked, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := l.seen(index.Checkpoint{ID: id}); len(got) != 0 {
		t.Errorf("a changed file is read: %v", got)
	}
}
