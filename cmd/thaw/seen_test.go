package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// What machines asked for is kept, and grows; a file that is none is of no use, and no harm.
func TestAsked(t *testing.T) {
	l := lessons{store: t.TempDir()}
	id := strings.Repeat("ab", 32)
	seen := func() []index.Run { return l.seen(index.Checkpoint{ID: id}) }
	if got := seen(); got != nil {
		t.Errorf("of an empty store: %v", got)
	}
	save := func(runs ...fs.PageRun) {
		t.Helper()
		if err := l.SaveAsked(id, runs); err != nil {
			t.Fatal(err)
		}
	}
	save(fs.PageRun{First: 10, Count: 5}, fs.PageRun{First: 100, Count: 1})
	save(fs.PageRun{First: 12, Count: 10}, fs.PageRun{First: 0, Count: 1}, fs.PageRun{First: 101, Count: 1})
	want := []index.Run{{GFN: 0, Count: 1}, {GFN: 10, Count: 12}, {GFN: 100, Count: 2}}
	if got := seen(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// Of too many the new ones stay.
	save(fs.PageRun{First: 1 << 20, Count: maxAskedPages - 1})
	if got := seen(); !slices.Equal(got, []index.Run{{GFN: 1 << 20, Count: maxAskedPages - 1}}) {
		t.Errorf("%v", got)
	}
	path := filepath.Join(l.store, lessonsDir, id+askedSuffix)
	for name, spoil := range map[string]func() error{
		"garbage":   func() error { return os.WriteFile(path, []byte("x"), 0o600) },
		"large":     func() error { return os.WriteFile(path, make([]byte, 2<<20), 0o600) },
		"negative":  func() error { return os.WriteFile(path, []byte("-1 4\n"), 0o600) },
		"empty run": func() error { return os.WriteFile(path, []byte("4 0\n"), 0o600) },
		"pipe":      func() error { return syscall.Mkfifo(path, 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
	} {
		os.Remove(path)
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got := seen(); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	os.Remove(path)
	for _, id := range []string{"", "..", "../x", "AB"} {
		if err := l.SaveAsked(id, []fs.PageRun{{First: 1, Count: 1}}); err == nil {
			t.Errorf("ID %q names a file", id)
		}
	}
	// As many runs as there can be fit.
	var most []fs.PageRun
	for i := range uint64(maxAskedPages) {
		most = append(most, fs.PageRun{First: 1<<32 - 1 - 2*maxAskedPages + 2*i, Count: 1})
	}
	if err := l.SaveAsked(id, most); err != nil {
		t.Error(err)
	}
	if got := seen(); len(got) != maxAskedPages {
		t.Errorf("%d runs", len(got))
	}
}

func FuzzAsked(f *testing.F) {
	for _, text := range []string{"", "1 2\n", "1 2\n3 4", "1", "1 2 3", "4294967295 4294967295\n", "a b\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		runs, err := parseAsked(strings.NewReader(text))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, r := range runs {
			if r.Count == 0 || r.GFN >= 1<<32 || r.Count >= 1<<32 {
				t.Fatalf("%+v", r)
			}
			fmt.Fprintf(&again, "%d %d\n", r.GFN, r.Count)
		}
		if back, err := parseAsked(strings.NewReader(again.String())); err != nil || !slices.Equal(back, runs) {
			t.Errorf("%v reads as %v, %v", runs, back, err)
		}
	})
}
