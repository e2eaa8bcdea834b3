package index

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// A checkpoint that has two names, because renaming it was interrupted, is two checkpoints: what is done to
// one of them costs the other nothing, although they have one segment.
func TestRenameInterrupted(t *testing.T) {
	ctx := context.Background()
	img := randomImage(rand.New(rand.NewPCG(3, 3)), 300).bytes()
	mem, dir := blobtest.NewMem(), t.TempDir()+"/s"
	s := openTest(t, dir, mem)
	src := writeSource(t, img, nil)
	set := []Run{{10, 50}}
	if _, _, err := s.Import(ctx, src, ImportOptions{Name: "a", WorkingSet: set}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, errblob.New(mem, func(c errblob.Call) errblob.Fault {
		if c.Op == errblob.Remove {
			return errblob.Fault{Err: errblob.ErrInjected}
		}
		return errblob.Fault{}
	}))
	if _, err := s.Rename(ctx, "a", "b"); !errors.Is(err, errblob.ErrInjected) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openTest(t, dir, mem)
	defer s.Close()
	has := func(name string, set []Run) {
		t.Helper()
		m := openImage(t, s, name)
		defer m.Close()
		sameImage(t, m, img)
		sameWorkingSet(t, m, img, set)
	}
	has("a", set)
	has("b", set)
	other := []Run{{200, 20}}
	if _, err := s.SetWorkingSet(ctx, "b", []byte("x"), other); err != nil {
		t.Fatal(err)
	}
	has("a", set)
	has("b", other)
	if _, err := s.Rename(ctx, "a", "b"); !errors.Is(err, ErrExists) {
		t.Errorf("renamed to a checkpoint that is another one by now: %v", err)
	}
	checkClean(t, s, true)
	if err := s.Remove(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(ctx, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	has("a", set)
	checkClean(t, s, true)
}
