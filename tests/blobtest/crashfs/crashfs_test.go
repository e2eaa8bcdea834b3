package crashfs_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/crashfs"
)

func open(t *testing.T, f *crashfs.FS) blob.Store {
	t.Helper()
	s, err := f.Store()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStore: without a crash it is a file system as any other, and so it is after one, for what was
// committed.
func TestStore(t *testing.T) {
	for name, end := range map[string]func(*crashfs.FS){
		"kill": (*crashfs.FS).Kill, "power cut": (*crashfs.FS).PowerCut,
	} {
		t.Run(name, func(t *testing.T) {
			of := map[blob.Store]*crashfs.FS{}
			blobtest.Suite{
				New: func(t *testing.T) blob.Store {
					f := crashfs.New(1)
					s := open(t, f)
					of[s] = f
					return s
				},
				Reopen: func(t *testing.T, s blob.Store) blob.Store {
					end(of[s])
					return open(t, of[s])
				},
			}.Run(t)
		})
	}
}

// outcomes runs a process many times, to die in each of its steps, and gives what the next one finds
// of the file after a power cut, with how often.
func outcomes(t *testing.T, process func(*crashfs.FS) error, name string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for seed := range uint64(400) {
		f := crashfs.New(seed)
		f.CrashIn(1+int(seed%8), nil)
		_ = process(f) // it dies
		f.PowerCut()
		b := "none"
		if h, err := f.Open(name); err == nil {
			buf := make([]byte, 2000)
			n, _ := h.ReadAt(buf, 0)
			b = string(buf[:n])
		}
		found[b]++
	}
	return found
}

func write(f *crashfs.FS, name string, data []byte, sync bool) error {
	h, err := f.Create(name)
	if err != nil {
		return err
	}
	if _, err := h.Write(data); err != nil {
		return err
	}
	if sync {
		return h.Sync()
	}
	return nil
}

// TestUnsynced: a file that is moved to its place without a Sync may be anything; with one it is
// whole or not there; and after SyncDir it is there.
func TestUnsynced(t *testing.T) {
	data := bytes.Repeat([]byte("data"), 500)
	careless := outcomes(t, func(f *crashfs.FS) error {
		return errors.Join(write(f, "/new", data, false), f.MoveNew("/new", "/file"), f.SyncDir("/"))
	}, "/file")
	if careless["none"] == 0 || careless[string(data)] == 0 || len(careless) < 10 {
		t.Errorf("%d different outcomes without Sync", len(careless))
	}
	careful := outcomes(t, func(f *crashfs.FS) error {
		return errors.Join(write(f, "/new", data, true), f.MoveNew("/new", "/file"), f.SyncDir("/"))
	}, "/file")
	if careful["none"] == 0 || careful[string(data)] == 0 || len(careful) != 2 {
		t.Errorf("%d different outcomes with Sync", len(careful))
	}
}

// TestReorder: of two moves without SyncDir the later one may be there and the earlier one not.
func TestReorder(t *testing.T) {
	seen := map[[2]bool]bool{}
	for seed := range uint64(200) {
		f := crashfs.New(seed)
		for _, n := range []string{"/a", "/b"} {
			if err := errors.Join(write(f, n+".new", nil, true), f.MoveNew(n+".new", n)); err != nil {
				t.Fatal(err)
			}
		}
		f.PowerCut()
		_, a := f.Stat("/a")
		_, b := f.Stat("/b")
		seen[[2]bool{a == nil, b == nil}] = true
	}
	if len(seen) != 4 {
		t.Errorf("%v", seen)
	}
}

// TestKillKeeps: a kill loses nothing, and makes nothing durable.
func TestKillKeeps(t *testing.T) {
	lost := 0
	for seed := range uint64(100) {
		f := crashfs.New(seed)
		if err := write(f, "/a", []byte("x"), true); err != nil {
			t.Fatal(err)
		}
		f.Kill()
		if _, err := f.Stat("/a"); err != nil {
			t.Fatal(err)
		}
		f.PowerCut()
		if _, err := f.Stat("/a"); err != nil {
			lost++
		}
	}
	if lost == 0 || lost == 100 {
		t.Errorf("lost %d times of 100", lost)
	}
}

// TestDead: a dead process gets nothing done, nor does the next one with what the first had open.
func TestDead(t *testing.T) {
	f := crashfs.New(7)
	s := open(t, f)
	blobtest.Put(t, s, "kept", []byte("x"))
	o, err := s.Open(context.Background(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(context.Background(), "lost")
	if err != nil {
		t.Fatal(err)
	}
	f.CrashIn(1, nil)
	if _, err := w.Write([]byte("y")); !errors.Is(err, crashfs.ErrCrashed) || !f.Crashed() {
		t.Fatal(err)
	}
	if err := s.Remove(context.Background(), "kept"); !errors.Is(err, crashfs.ErrCrashed) {
		t.Errorf("remove by the dead: %v", err)
	}
	f.Kill()
	if err := w.Commit(); !errors.Is(err, crashfs.ErrCrashed) {
		t.Errorf("commit by the dead: %v", err)
	}
	if _, err := o.ReadAt(make([]byte, 1), 0); !errors.Is(err, crashfs.ErrCrashed) {
		t.Errorf("read by the dead: %v", err)
	}
	s = open(t, f)
	if l, err := s.List(context.Background(), ""); err != nil || len(l) != 1 {
		t.Errorf("%v, %v", l, err)
	}
	if got := string(blobtest.Get(t, s, "kept")); got != "x" {
		t.Errorf("%q", got)
	}
}

// TestShownStays: what a process finds when it opens the store, and shows, does not change with the
// next power cut, although the process that did it was killed before it was durable.
func TestShownStays(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(300) {
		f := crashfs.New(seed)
		blobtest.Put(t, open(t, f), "dir/old", []byte("x"))
		f.Kill()
		s := open(t, f)
		f.CrashIn(1+int(seed%12), nil)
		_ = s.Remove(ctx, "dir/old")
		if w, err := s.Create(ctx, "new/dir/blob"); err == nil {
			_, _ = w.Write([]byte("y"))
			_ = w.Commit()
		}
		f.Kill()
		shown, err := open(t, f).List(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		f.PowerCut()
		stayed, err := open(t, f).List(ctx, "")
		if d := cmp.Diff(shown, stayed); err != nil || d != "" {
			t.Fatalf("seed %d: %v\n%s", seed, err, d)
		}
	}
}
