package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/importer"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/learn"
)

const learnedPages = 2048

// provedRecord is a record of a checkpoint that has pages from 0 on in its set, 100 of them, and whose
// machines miss 60 from 1000 on.
func provedRecord(t *testing.T) *learn.Record {
	t.Helper()
	r := learn.New(learnedPages)
	for !r.Proved() {
		if r.Restores > 20 {
			t.Fatalf("%+v", r.History)
		}
		base := r.Meet([]learn.Span{{First: 0, Count: 100}}, time.Unix(1e9, 0))
		p := r.Begin()
		x := learn.Restore{At: time.Unix(1e9, 0), Base: base, Candidate: p.Candidate, Pages: 100,
			Touched: &wss.Set{ImagePages: learnedPages},
			Brought: func(gfn uint64) bool { return gfn < 100 || p.Candidate > 0 && gfn >= 1000 && gfn < 1060 }}
		if p.Candidate == 0 {
			x.Touched.Runs = []wss.Run{{GFN: 1000, Count: 60, At: time.Millisecond, Source: wss.SourceRead,
				VCPU: wss.NoVCPU}}
		}
		r.Take(x)
	}
	return r
}

// learnedStore makes a store with one checkpoint, "a", whose set is 100 pages by trace.
func learnedStore(t *testing.T, dir string, blobs blob.Store) (*index.Store, index.Checkpoint) {
	t.Helper()
	memory := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(memory, bytes.Repeat([]byte("page"), learnedPages*1024), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := index.OpenSource(memory)
	if err != nil {
		t.Fatal(err)
	}
	s, err := index.Open(t.Context(), dir, index.OpenOptions{Create: true,
		Wrap: func(context.Context, blob.Store) (blob.Store, error) { return blobs, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Import(t.Context(), src, index.ImportOptions{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("thaw-working-set 1\npages %d\nwindow 1s\n\n0 100 5000 trace\n", learnedPages)
	set, err := importer.ParseWorkingSet([]byte(text), learnedPages*index.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.SetTimedWorkingSet(t.Context(), "a", []byte(text), importer.Runs(set), importer.Wanted(set))
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// A set that has proved itself becomes that of its checkpoint, once, and not if the checkpoint has got
// another one since. Whatever operation of the store fails, the checkpoint has the old set or the new one,
// and can be restored; and the next try does it.
func TestPromote(t *testing.T) {
	check := func(s *index.Store, want uint64) {
		t.Helper()
		d, err := s.Inspect(t.Context(), "a")
		if err != nil || d.WorkingSet == nil || d.WorkingSet.Pages != want {
			t.Fatalf("%+v, %v; want %d pages", d.WorkingSet, err, want)
		}
		text, err := s.ReadFile(t.Context(), "a", state.SetFile)
		if err != nil {
			t.Fatal(err)
		}
		set, err := wss.Parse(bytes.NewReader(text))
		if err != nil || set.Pages() != want {
			t.Fatalf("%v, %v", set, err)
		}
		if want == 160 && (set.Runs[0].GFN != 1000 || set.Runs[0].Source != wss.SourceLearned) {
			t.Errorf("what is touched first is not first: %+v", set.Runs[0])
		}
		if r, err := s.Check(t.Context(), index.CheckOptions{ReadData: true}); err != nil || len(r.Problems) > 0 {
			t.Fatalf("%+v, %v", r.Problems, err)
		}
	}
	done := false
	for n := 0; !done; n++ {
		mem, dir := blobtest.NewMem(), filepath.Join(t.TempDir(), "s")
		s, c := learnedStore(t, dir, mem)
		r := provedRecord(t)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		faulty := errblob.New(mem, nil)
		s = reopen(t, dir, faulty)
		before := faulty.Operations()
		if n > 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			faulty = errblob.New(mem, errblob.FailNth(before+n, errblob.ErrInjected))
			s = reopen(t, dir, faulty)
		}
		err := promoteIn(t.Context(), s, c.Version(), r)
		done = n > 0 && faulty.Operations() < before+n
		_ = s.Close() // it may say that it was left in doubt
		s = reopen(t, dir, mem)
		d, ierr := s.Inspect(t.Context(), "a")
		if ierr != nil {
			t.Fatal(ierr)
		}
		if d.Generation == c.Generation {
			if err == nil {
				t.Fatalf("operation %d: it says that it was done", n)
			}
			check(s, 100)
			if err := promoteIn(t.Context(), s, c.Version(), r); err != nil {
				t.Fatalf("operation %d: the next try: %v", n, err)
			}
		}
		check(s, 160)
		if err := promoteIn(t.Context(), s, c.Version(), r); !errors.Is(err, index.ErrChanged) {
			t.Errorf("a second time: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func reopen(t *testing.T, dir string, blobs blob.Store) *index.Store {
	t.Helper()
	s, err := index.Open(t.Context(), dir, index.OpenOptions{
		Wrap: func(context.Context, blob.Store) (blob.Store, error) { return blobs, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What was learned is loaded by the next server; what is no record is an error, nothing hangs, and what
// cannot be written leaves nothing.
func TestLearnedFiles(t *testing.T) {
	l := lessons{store: t.TempDir()}
	id := strings.Repeat("ab", 32)
	if r, err := l.LoadLearned(id); err != nil || r != nil {
		t.Errorf("in an empty store: %+v, %v", r, err)
	}
	text, err := provedRecord(t).Text()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SaveLearned(id, text); err != nil {
		t.Fatal(err)
	}
	if r, err := l.LoadLearned(id); err != nil || !r.Proved() {
		t.Errorf("%+v, %v", r, err)
	}
	path := filepath.Join(l.store, lessonsDir, id+learnedSuffix)
	for name, spoil := range map[string]func() error{
		"garbage":   func() error { return os.WriteFile(path, []byte("x"), 0o600) },
		"empty":     func() error { return os.WriteFile(path, nil, 0o600) },
		"large":     func() error { return os.Truncate(path, learn.MaxText+1) },
		"pipe":      func() error { return syscall.Mkfifo(path, 0o600) },
		"directory": func() error { return os.MkdirAll(filepath.Join(path, "x"), 0o700) },
	} {
		os.Remove(path)
		if name == "large" {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if r, err := l.LoadLearned(id); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
		err := l.SaveLearned(id, text)
		if (name == "directory") != (err != nil) {
			t.Errorf("%s: saved: %v", name, err)
		}
		if e, err := os.ReadDir(filepath.Dir(path)); err != nil || len(e) != 1 {
			t.Errorf("%s: %d files, %v", name, len(e), err)
		}
		os.RemoveAll(path)
	}
	for _, id := range []string{"", "..", "../x", "AB"} {
		if err := l.SaveLearned(id, text); err == nil {
			t.Errorf("ID %q names a file", id)
		}
		if _, err := l.LoadLearned(id); err == nil {
			t.Errorf("ID %q names a file", id)
		}
	}
}

// What was learned of checkpoints that are gone goes with them.
func TestSweepLearned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s, c := learnedStore(t, dir, blobtest.NewMem())
	defer s.Close()
	l, gone := lessons{store: dir}, strings.Repeat("0", len(c.ID))
	for _, id := range []string{c.ID, gone} {
		if err := l.SaveLearned(id, []byte("x\n")); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweepLessons(t.Context(), dir, s); err != nil {
		t.Error(err)
	}
	e, err := os.ReadDir(filepath.Join(dir, lessonsDir))
	if err != nil || len(e) != 1 || e[0].Name() != c.ID+learnedSuffix {
		t.Errorf("%v, %v", e, err)
	}
}
