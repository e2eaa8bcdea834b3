package fs

import (
	"context"
	"fmt"
	"time"
)

// Release closes the image of a checkpoint that is about to be removed. ErrInUse if its memory is
// open; pushes on their way are waited for, ctx bounds that. An open that comes later opens the
// image again, as long as the store has it.
func (s *Server) Release(ctx context.Context, name string) error {
	e := s.tree.entry(name)
	if e == nil {
		return fmt.Errorf("release %s: %w", name, ErrNotFound)
	}
	for {
		wait, err := s.release(e)
		if wait == nil {
			return err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("release %s: %w", name, ctx.Err())
		}
	}
}

// release closes what nobody uses. If pushers still do, it returns what to wait for.
func (s *Server) release(e *entry) (wait <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.opens > 0 {
		return nil, fmt.Errorf("release %s: %w (%d times)", e.name, ErrInUse, e.opens)
	}
	if err := s.settleLocked(e, true); err != nil {
		return nil, fmt.Errorf("release %s: %w", e.name, err)
	}
	if e.img.Load() == nil && len(e.replaced) == 0 {
		s.idle.remove(e)
		return nil, nil
	}
	if e.quiet == nil {
		e.quiet = make(chan struct{})
	}
	return e.quiet, nil
}

// lookEvery bounds how often a name that is not there has the store listed.
const lookEvery = 2 * time.Second

// lookAgain makes the tree follow the store in the background when a name was asked for that may be
// new: whoever committed it may have been killed before it could say so. It is never waited for,
// because the kernel holds the lock of the directory in which Refresh has names dropped.
func (s *Server) lookAgain() {
	if s.looked.allows(time.Since(s.began), lookEvery) {
		s.goes("a refresh", func() {
			if err := s.Refresh(s.ctx); err != nil && s.ctx.Err() == nil {
				s.warn("the store cannot be listed", "error", err)
			}
		})
	}
}
