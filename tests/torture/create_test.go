package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/index"
)

// TestCreateTogether: several begin a store in one place at the same moment. One makes it, and all
// use that one.
func TestCreateTogether(t *testing.T) {
	dir := t.TempDir()
	c := &checkpoint{pages: freshImage(rand.New(rand.NewPCG(1, 1)), 20)}
	if err := c.writeSource(filepath.Join(dir, "source")); err != nil {
		t.Fatal(err)
	}
	src, err := index.OpenSource(filepath.Join(dir, "source"))
	if err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		store := filepath.Join(dir, fmt.Sprint("store", round))
		begin := make(chan struct{})
		var wg sync.WaitGroup
		failed := make([]error, 4)
		for i := range failed {
			wg.Go(func() {
				<-begin
				failed[i] = importInto(store, src, fmt.Sprint("c", i))
			})
		}
		close(begin)
		wg.Wait()
		if err := errors.Join(failed...); err != nil {
			t.Fatal(err)
		}
		s, err := index.Open(t.Context(), store, index.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.List(t.Context())
		if err != nil || len(list) != len(failed) {
			t.Errorf("round %d: %d checkpoints, %v", round, len(list), err)
		}
		rep, err := s.Check(t.Context(), index.CheckOptions{ReadData: true})
		if err != nil || !rep.OK() {
			t.Errorf("round %d: check: %v, %s", round, err, some(rep.Problems))
		}
		if err := s.Close(); err != nil || t.Failed() {
			t.Fatal(err)
		}
	}
}

// importInto imports into a store that may not be there yet.
func importInto(store string, src index.Source, name string) error {
	s, err := index.Open(context.Background(), store, index.OpenOptions{Create: true, Wait: time.Minute})
	if err != nil {
		return err
	}
	_, _, err = s.Import(context.Background(), src, index.ImportOptions{Name: name})
	return errors.Join(err, s.Close())
}
