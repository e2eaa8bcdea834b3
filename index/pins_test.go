package index

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// An import that fails, at whatever operation, releases all packs that it had pinned: a collection
// could never remove them, and Close says so.
func TestFailedImportPinsNothing(t *testing.T) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(31, 1))
	base, _ := scattered(r, 60)
	// Several that could be the parent, none of them so good that the others are not looked at.
	blobs := errblob.New(blobtest.NewMem(), nil)
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, blobs)
	for _, name := range []string{"one", "two", "three"} {
		mustImport(t, s, name, writeSource(t, base.changed(r, 0.7).bytes(), nil), nil)
	}
	s.Close()
	src := writeSource(t, base.bytes(), nil)
	failures := 0
	for op, came := 1, true; came; op++ {
		s := openTest(t, dir, blobs)
		s.hints.level = hintsMemory
		came = false
		at := blobs.Operations() + op
		blobs.SetPlan(func(c errblob.Call) (f errblob.Fault) {
			if c.N == at {
				came, f.Err = true, errblob.ErrInjected
			}
			return f
		})
		_, _, err := s.Import(ctx, src, ImportOptions{Name: "four"})
		blobs.SetPlan(nil)
		switch {
		case errors.Is(err, errblob.ErrInjected):
			failures++
		case err != nil:
			t.Fatal(err)
		default: // some failures it does without
			if err := s.Remove(ctx, "four"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.GC(ctx, GCOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatalf("operation %d: %v", op, err)
		}
	}
	if failures < 5 {
		t.Errorf("only %d operations made it fail", failures)
	}
}
