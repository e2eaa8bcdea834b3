package index

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

// One who gives way ends in the middle of a pack when another process wants to write; the pack stays as it
// was, and what the other one does is done.
func TestRepackGivesWay(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	images := threeCheckpoints(t, s, newRand(t))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, dir, OpenOptions{Yield: YieldAll})
	if err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	begun, stage := false, ""
	memory := NewRepackMemory()
	said := func(p Progress) { stage = p.Stage }
	wait := func(ctx context.Context) error {
		if stage != "repack" {
			return nil
		}
		if !begun {
			begun = true
			go func() { other <- setOf(dir, "a") }()
		}
		<-ctx.Done() // or the test hangs
		return ctx.Err()
	}
	rep, err := s.Repack(ctx, RepackOptions{Memory: memory, Progress: said, Wait: wait})
	if !errors.Is(err, ErrGaveWay) || rep.Repacked != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-other; err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	for _, g := range s.generations() {
		if g != 0 {
			t.Errorf("a pack was written again: %v", s.generations())
		}
	}
	if rep := mustRepack(t, s, RepackOptions{Memory: memory}); rep.Repacked < 3 {
		t.Errorf("%+v", rep)
	}
	sameImages(t, s, images)
	checkClean(t, s, true)
}

// It waits before it looks at a checkpoint or pack, too: of a large store that takes long. In the second call
// there is nothing of this left.
func TestRepackWaitsToLook(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	threeCheckpoints(t, s, newRand(t))
	waits := 0
	o := RepackOptions{DryRun: true, Memory: NewRepackMemory(), Wait: func(context.Context) error {
		waits++
		return nil
	}}
	if rep := mustRepack(t, s, o); waits < 3+rep.Packs {
		t.Errorf("it waited %d times for 3 checkpoints and %d packs", waits, rep.Packs)
	}
	waits = 0
	if mustRepack(t, s, o); waits != 0 {
		t.Errorf("it waited %d times for what it knows", waits)
	}
	stop := errors.New("stop")
	o.Memory, o.Wait = NewRepackMemory(), func(context.Context) error { return stop }
	if rep, err := s.Repack(ctx, o); !errors.Is(err, stop) || rep.Packs != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// That a pack is damaged is said by the call that ends, although an earlier one had found it and gave way.
func TestRepackSaysDamageAfterGivingWay(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	threeCheckpoints(t, s, newRand(t))
	bad := s.packsOf(t, "a")[0]
	path := filepath.Join(dir, pack.Name(bad, 0))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b)/2; i++ { // most pages, and no nodes
		b[i] ^= 1
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	memory, looks, waits := NewRepackMemory(), false, 0
	rep, err := s.Repack(ctx, RepackOptions{Memory: memory, Wait: func(context.Context) error {
		if looks {
			waits++
		}
		if waits < 3 { // the first two packs
			return nil
		}
		return ErrGaveWay
	}, Progress: func(p Progress) { looks = looks || p.Stage == "look" }})
	if !errors.Is(err, ErrGaveWay) || rep.Packs != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	rep, err = s.Repack(ctx, RepackOptions{Memory: memory})
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || rep.Damaged != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	mustRepack(t, s, RepackOptions{Memory: memory})
}

// setOf sets a working set, without patience.
func setOf(dir, name string) error {
	s, err := Open(context.Background(), dir, OpenOptions{})
	if err != nil {
		return err
	}
	_, err = s.SetWorkingSet(context.Background(), name, []byte("set"), []Run{{10, 40}})
	return errors.Join(err, s.Close())
}
