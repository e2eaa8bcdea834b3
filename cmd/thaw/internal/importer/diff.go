package importer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/guestmem"
	"github.com/thawfs/thaw/index"
)

// complete gives a diff the memory of its parent, a checkpoint of the store. The parent is open until the
// returned function is called.
func (src *Source) complete(ctx context.Context, store *index.Store, parent string) (done func(), err error) {
	if src.saved == nil || !src.saved.IsDiff() {
		if parent != "" {
			return nil, exitcode.Errorf(exitcode.Usage, "only a diff of Firecracker has a parent")
		}
		return func() {}, nil
	}
	if parent == "" {
		return nil, errors.New("a diff needs a parent") // a source is opened as a diff only with one
	}
	m, err := store.OpenImage(ctx, parent)
	if err != nil {
		return nil, fmt.Errorf("parent %s: %w", parent, err)
	}
	done = func() { _ = m.Close() } // it was only read
	if err := src.saved.Over(stored{m}); err != nil {
		done()
		return nil, foreignError(err)
	}
	src.saved.Facts = with(src.saved.Facts, guestmem.Facts{"parent": parent, "parent_id": m.Checkpoint().ID})
	if src.saved.Regions == nil {
		src.saved.Regions = regionsOf(m.Checkpoint())
	}
	if err := src.setImage(); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// stored is the memory of a checkpoint as a parent. Pages that it has lost are errors.
type stored struct{ m *index.Image }

// Size implements guestmem.Memory.
func (s stored) Size() int64 { return s.m.Size() }

// ReadAt implements guestmem.Memory.
func (s stored) ReadAt(p []byte, off int64) (int, error) {
	if err := s.m.ReadRange(uint64(off)/index.PageSize, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

var _ io.ReaderAt = stored{}

// Extents implements guestmem.Memory: what is between the runs of zeros.
func (s stored) Extents() (list []guestmem.Run, err error) {
	next := uint64(0)
	upTo := func(page uint64) {
		if page > next {
			list = append(list, guestmem.Run{First: next, Count: page - next})
		}
	}
	s.m.ZeroRuns(func(first, count uint64) bool {
		upTo(first)
		next = first + count
		return true
	})
	upTo(s.m.Pages())
	return list, nil
}
