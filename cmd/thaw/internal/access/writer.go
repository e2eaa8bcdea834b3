package access

import (
	"context"
	"fmt"
	"time"

	"github.com/thawfs/thaw/index"
)

// A Writer writes to a store several times, which it opens only once: to open one takes the longer the more
// it has. Between two times it gives the store to other processes that wait to write to it.
type Writer struct {
	stores Stores
	dir    string
	store  *index.Store // nil: not open
}

// NewWriter returns a Writer, which opens nothing yet.
func NewWriter(s Stores, dir string) *Writer { return &Writer{stores: s, dir: dir} }

// Next does something with the store, which is opened for it as o says if it is not open. After an error the
// store is closed.
func Next[T any](ctx context.Context, w *Writer, o index.OpenOptions, do func(*index.Store) (T, error)) (
	got T, err error) {
	if w.store != nil && index.WriterWaits(w.dir, index.YieldWriters) {
		if err := w.Close(); err != nil {
			return got, err
		}
		if err := LetOthers(ctx, w.dir, index.YieldWriters); err != nil {
			return got, err
		}
	}
	if w.store == nil {
		if w.store, err = openToWrite(ctx, w.stores, w.dir, o); err != nil {
			return got, err
		}
	}
	if got, err = do(w.store); err != nil {
		_ = w.Close() // what failed first is the reason
	}
	return got, err
}

// Close closes the store, if it is open.
func (w *Writer) Close() error {
	s := w.store
	w.store = nil
	if s == nil {
		return nil
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("close store %s: %w", w.dir, err)
	}
	return nil
}

// LetOthers waits while other processes wait to write to a store: the lock was free just now.
func LetOthers(ctx context.Context, store string, y index.Yield) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for index.WriterWaits(store, y) {
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for other commands: %w", ctx.Err())
		}
	}
	return nil
}
