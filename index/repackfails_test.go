package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// A pack in which a page is damaged stays as it is. The others are repacked, and the error names it; it does
// not come again as long as nothing changes.
func TestRepackDamaged(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	images := threeCheckpoints(t, s, newRand(t))
	bad := s.packsOf(t, "a")[0]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, pack.Name(bad, 0))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good := bytes.Clone(b)
	b[len(b)/3] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	memory := NewRepackMemory()
	rep, err := s.Repack(ctx, RepackOptions{Memory: memory})
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || rep.Damaged != 1 || rep.Repacked < 2 || s.generations()[bad] != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if rep, err := s.Repack(ctx, RepackOptions{Memory: memory}); err != nil || rep.Repacked != 0 {
		t.Errorf("again: %+v, %v", rep, err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 1 {
		t.Errorf("after it was mended: %+v", rep)
	}
	sameImages(t, s, images)
}

// wrongWriter changes one byte of what is written of generations after the first.
type wrongWriter struct{ blob.Store }

func (s wrongWriter) Create(ctx context.Context, name string) (blob.Writer, error) {
	w, err := s.Store.Create(ctx, name)
	if _, g, ok := pack.ParseName(name); err == nil && ok && g > 0 {
		w = &wrongBytes{Writer: w}
	}
	return w, err
}

type wrongBytes struct {
	blob.Writer
	done int
}

func (w *wrongBytes) Write(b []byte) (int, error) {
	if w.done += len(b); w.done > 5000 && w.done-len(b) <= 5000 {
		b = bytes.Clone(b)
		b[5000-(w.done-len(b))] ^= 4
	}
	return w.Writer.Write(b)
}

// A new generation that is not what was to be written never takes the place of the old one.
func TestRepackReadsBack(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", wrongWriter{blobtest.NewMem()})
	images := threeCheckpoints(t, s, newRand(t))
	before := s.generations()
	rep, err := s.Repack(context.Background(), RepackOptions{})
	if err == nil || rep.Repacked != 0 || rep.Damaged < 3 {
		t.Errorf("%+v, %v", rep, err)
	}
	if after := s.generations(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v became %v", before, after)
	}
	sameImages(t, s, images)
	checkClean(t, s, true)
}

// killedStore is that of a process which is killed when it reads back a new generation.
type killedStore struct {
	blob.Store
	killed bool
}

func (s *killedStore) Remove(ctx context.Context, name string) error {
	if s.killed {
		return errKilled
	}
	return s.Store.Remove(ctx, name)
}

var errKilled = errors.New("killed")

// A new generation that is not what was to be written does not take the place of the old one either when who
// wrote it was killed before it had read it back. One that is right does.
func TestRepackKilledBeforeItReadsBack(t *testing.T) {
	ctx := context.Background()
	for _, wrong := range []bool{true, false} {
		mem, dir := blobtest.NewMem(), t.TempDir()+"/s"
		s := openTest(t, dir, mem)
		images := threeCheckpoints(t, s, newRand(t))
		before := s.generations()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		k := &killedStore{Store: mem}
		if wrong {
			k.Store = wrongWriter{mem}
		}
		s = openTest(t, dir, k)
		rep, err := s.Repack(ctx, RepackOptions{Wait: func(ctx context.Context) error {
			list, err := mem.List(ctx, "packs/")
			for _, b := range list {
				if _, g, _ := pack.ParseName(b.Name); g > 0 {
					k.killed, err = true, errKilled
				}
			}
			return err
		}})
		if !errors.Is(err, errKilled) || rep.Repacked != 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		reader := openReader(t, dir, mem) // a server meanwhile, before the next writer has found out
		sameImages(t, reader, images)
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, dir, mem)
		if after := s.generations(); (fmt.Sprint(after) == fmt.Sprint(before)) != wrong {
			t.Errorf("wrong %v: %v became %v", wrong, before, after)
		}
		if list, err := mem.List(ctx, "packs/"); err != nil || len(list) != len(before) {
			t.Errorf("wrong %v: %v, %v", wrong, list, err)
		}
		sameImages(t, s, images)
		checkClean(t, s, true)
		if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked == 0 {
			t.Errorf("%+v", rep)
		}
	}
}

// A full disk loses nothing, and leaves nothing.
func TestRepackFullDisk(t *testing.T) {
	ctx := context.Background()
	mem := blobtest.NewMem()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, mem)
	images := threeCheckpoints(t, s, newRand(t))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := mem.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, errblob.New(mem, errblob.Full(10_000)))
	rep, err := s.Repack(ctx, RepackOptions{})
	if !errors.Is(err, unix.ENOSPC) || rep.Repacked != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := mem.List(ctx, "")
	if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v became %v (%v)", before, after, err)
	}
	s = openTest(t, dir, mem)
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked == 0 {
		t.Errorf("%+v", rep)
	}
	sameImages(t, s, images)
}
