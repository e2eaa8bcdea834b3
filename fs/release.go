package fs

import (
	"context"
	"fmt"
	"time"
)

// Release closes the image of a checkpoint that is about to be removed. ErrInUse if its memory is
// open; it waits for pushes in progress, at most until ctx ends. An open that comes later opens the
// image again, while the store still has it.
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

// lookEvery bounds how often an unknown name makes the server list the store.
const lookEvery = 2 * time.Second

// lookAgain updates the tree from the store in the background, when a name was asked for that may be
// new: the command that imported it may have been killed before it could report it. No request waits
// for this, because the kernel holds the lock of the directory in which Refresh drops names.
func (s *Server) lookAgain() {
	if s.looked.allows(time.Since(s.began), lookEvery) {
		s.goes("a refresh", func() {
			if err := s.Refresh(s.ctx); err != nil && s.ctx.Err() == nil {
				s.warn("the store cannot be listed", "err", err)
			}
		})
	}
}
