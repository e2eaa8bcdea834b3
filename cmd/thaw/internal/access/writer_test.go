package access

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/index"
)

func testWriter(t *testing.T) (*Writer, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	w := NewWriter(Stores{Note: func(string, ...any) {}}, dir)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w, dir
}

// which does nothing with the store, and says which one it was.
func which(s *index.Store) (*index.Store, error) { return s, nil }

// A Writer opens its store once, and anew after an error.
func TestWriterOpensOnce(t *testing.T) {
	w, dir := testWriter(t)
	o := index.OpenOptions{Create: true}
	first, err := Next(t.Context(), w, o, which)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Next(t.Context(), w, o, which); err != nil || again != first {
		t.Errorf("it is another store: %v", err)
	}
	failed := errors.New("failed")
	fail := func(s *index.Store) (*index.Store, error) { return s, failed }
	if _, err := Next(t.Context(), w, o, fail); !errors.Is(err, failed) {
		t.Error(err)
	}
	s, err := index.Open(t.Context(), dir, index.OpenOptions{})
	if err != nil {
		t.Fatalf("the store is not closed after an error: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if again, err := Next(t.Context(), w, o, which); err != nil || again == first {
		t.Errorf("the store was not opened again: %v", err)
	}
}

// A process that waits to write gets the store before the Writer's next turn.
func TestWriterGivesWay(t *testing.T) {
	w, dir := testWriter(t)
	o := index.OpenOptions{Create: true}
	if _, err := Next(t.Context(), w, o, which); err != nil {
		t.Fatal(err)
	}
	had := make(chan error, 1)
	go func() {
		s, err := index.Open(t.Context(), dir, index.OpenOptions{Wait: time.Minute})
		if err == nil {
			err = s.Close()
		}
		had <- err
	}()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for !index.WriterWaits(dir, index.YieldWriters) {
		select {
		case err := <-had:
			t.Fatalf("it did not wait: %v", err)
		case <-again.C:
		}
	}
	turn := func(s *index.Store) (*index.Store, error) {
		select {
		case err := <-had:
			return s, err
		case <-time.After(10 * time.Second):
			return s, errors.New("the other one has not had its turn")
		}
	}
	if _, err := Next(t.Context(), w, o, turn); err != nil {
		t.Error(err)
	}
}
