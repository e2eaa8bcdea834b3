package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// Verbs of the control socket: what only the server of a mount can do.
const (
	verbStatus    = "status"
	verbRefresh   = "refresh"    // the tree follows the store
	verbRelease   = "release"    // let go of a checkpoint that is to be removed; refused while it is used
	verbCloseIdle = "close-idle" // let go of what nobody uses
	verbDrop      = "drop"       // make an image cold
	verbRecord    = "record"     // what was read, as a working set
	verbUnmount   = "unmount"
)

// serverStatus is what a server says of itself.
type serverStatus struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Store   string `json:"store"`
	Mount   string `json:"mount"`
	Policy  string `json:"policy"`
	// Detached: it is out of the tree, and served to those who use it still.
	Detached bool        `json:"detached,omitempty"`
	Users    []fs.User   `json:"users,omitempty"` // of a detached one
	Disk     *diskStatus `json:"disk,omitempty"`  // the simulated one; nil: none
}

// nameRequest names a checkpoint.
type nameRequest struct{ Name string }

// dropRequest makes an image cold. Packs: it leaves the host's page cache too, for measurements.
// Record: what is read from the next open on is recorded, whatever the policy.
type dropRequest struct {
	Name          string
	Packs, Record bool
}

// recordRequest asks for what was read of a checkpoint; Force takes also what no machine reads.
type recordRequest struct {
	Name  string
	Force bool
}

// recorded is the answer: the working set as text, and of which checkpoint it is.
type recorded struct {
	Store   string
	Version index.Version
	Text    []byte
}

// unmountRequest: with Detach the mount goes though it is in use.
type unmountRequest struct{ Detach bool }

// verbs are all handlers of a mounted store.
func (s *server) verbs() map[string]control.Handler {
	type none struct{}
	return map[string]control.Handler{
		verbStatus: control.Handle(func(context.Context, none) (any, error) {
			return s.status(), nil
		}),
		verbRefresh: control.Handle(func(ctx context.Context, _ none) (any, error) {
			// Also where the command went away: what it changed stands.
			return nil, s.refresh(context.WithoutCancel(ctx))
		}),
		verbRelease: control.Handle(func(ctx context.Context, r nameRequest) (any, error) {
			return nil, s.fs.Release(ctx, r.Name)
		}),
		verbCloseIdle: control.Handle(func(context.Context, none) (any, error) {
			s.fs.CloseIdle()
			return nil, nil
		}),
		verbUnmount: control.Handle(func(ctx context.Context, r unmountRequest) (any, error) {
			// The end of the mount ends ctx, and is what is asked for.
			return nil, s.take(context.WithoutCancel(ctx), r.Detach)
		}),
		verbDrop: control.Handle(func(ctx context.Context, r dropRequest) (any, error) {
			return nil, s.drop(ctx, r)
		}),
		verbRecord: control.Handle(func(ctx context.Context, r recordRequest) (any, error) {
			return s.record(ctx, r)
		}),
	}
}

func (s *server) status() serverStatus {
	st := serverStatus{
		PID: os.Getpid(), Version: buildVersion().Version, Store: s.store, Mount: s.mnt,
		Policy: s.policy.String(), Detached: s.detached.Load(),
	}
	if st.Detached {
		st.Users, _ = s.fs.Users() // for a message only
	}
	if s.disk != nil {
		st.Disk = &diskStatus{s.disk.Spec(), s.disk.Stats()}
	}
	return st
}

// take takes the mount away; with detach also one that is in use.
func (s *server) take(ctx context.Context, detach bool) error {
	if detach {
		return s.detach(ctx)
	}
	err := s.fs.Unmount(ctx)
	var in *fs.InUseError
	if errors.As(err, &in) && in.Gone {
		s.detached.Store(true)
	}
	return err
}

// refresh reads what other processes have written, and makes the tree follow.
func (s *server) refresh(ctx context.Context) error {
	if err := s.reader.Refresh(ctx); err != nil {
		return err
	}
	return s.fs.Refresh(ctx)
}

func (s *server) drop(ctx context.Context, r dropRequest) error {
	drop := s.fs.Drop
	if r.Record {
		drop = s.fs.StartRecord
	}
	if err := drop(ctx, r.Name); err != nil {
		return err
	}
	if !r.Packs {
		return nil
	}
	return s.reader.DropCaches(ctx, r.Name)
}

// record returns the read trace of an image, for a command to make it the working set.
func (s *server) record(ctx context.Context, r recordRequest) (recorded, error) {
	d, err := s.reader.Inspect(ctx, r.Name)
	if err != nil {
		return recorded{}, err
	}
	set, err := s.fs.Record(ctx, r.Name, fs.RecordOptions{Force: r.Force})
	if err != nil {
		return recorded{}, err
	}
	var text bytes.Buffer
	if _, err := set.WriteTo(&text); err != nil {
		return recorded{}, fmt.Errorf("working set of %s: %w", r.Name, err)
	}
	return recorded{s.store, d.Version(), text.Bytes()}, nil
}
