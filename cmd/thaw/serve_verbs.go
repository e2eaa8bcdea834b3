package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// dropRequest makes an image cold. Packs: it leaves the host's page cache too, for measurements.
// Record: what is read from the next open on is recorded, whatever the policy.
type dropRequest struct {
	Name          string
	Packs, Record bool
}

// recordRequest asks for the working set of what was read; MaxShare is that of a wss.Policy.
type recordRequest struct {
	Name     string
	MaxShare float64
}

// recordReply is the working set that was recorded. Warning says what was left out of it.
type recordReply struct {
	Checkpoint index.Checkpoint `json:"checkpoint"`
	Pages      uint64           `json:"pages"`
	Runs       int              `json:"runs"`
	Window     float64          `json:"window_seconds"`
	Warning    string           `json:"warning,omitempty"`
}

// verbs are all handlers of a mounted store: what any store can do, and what needs the mount.
func (s *server) verbs() map[string]control.Handler {
	// The tree follows also where the client went away while its change was committed.
	refresh := func(ctx context.Context) error { return s.fs.Refresh(context.WithoutCancel(ctx)) }
	verbs := storeVerbs(s.local, refresh)
	type none struct{}
	maps.Copy(verbs, map[string]control.Handler{
		verbStatus: control.Handle(func(context.Context, none, func(control.Progress)) (any, error) {
			return s.status(), nil
		}),
		verbRemove: control.Handle(func(ctx context.Context, r nameRequest, _ progressFunc) (any, error) {
			return nil, s.remove(ctx, r.Name, refresh)
		}),
		verbGC: control.Handle(func(ctx context.Context, r gcRequest, p progressFunc) (any, error) {
			s.fs.CloseIdle() // images that nobody has open would hold their packs
			return s.local.GC(ctx, r, p)
		}),
		verbUnmount: control.Handle(func(ctx context.Context, _ none, _ progressFunc) (any, error) {
			// The end of the mount ends ctx, and is what is asked for.
			return nil, s.fs.Unmount(context.WithoutCancel(ctx))
		}),
		verbDrop: control.Handle(func(ctx context.Context, r dropRequest, _ progressFunc) (any, error) {
			return nil, s.drop(ctx, r)
		}),
		verbRecord: control.Handle(func(ctx context.Context, r recordRequest, _ progressFunc) (any, error) {
			return s.record(ctx, r, refresh)
		}),
	})
	return verbs
}

func (s *server) status() serverStatus {
	st := serverStatus{
		PID: os.Getpid(), Version: buildVersion().Version,
		Store: s.store, Mount: s.mnt, Policy: s.policy.String(),
	}
	if s.disk != nil {
		st.Disk = &diskStatus{s.disk.Spec(), s.disk.Stats()}
	}
	return st
}

// remove refuses a checkpoint whose memory is open on the mount.
func (s *server) remove(ctx context.Context, name string,
	refresh func(context.Context) error) error {
	if s.fs.InUse(name) > 0 {
		return fmt.Errorf("%w: its memory is open on the mount", index.ErrInUse)
	}
	s.fs.CloseIdle()
	if err := s.local.Remove(ctx, name); err != nil {
		return err
	}
	return refresh(ctx)
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
	return s.local.store.DropCaches(ctx, r.Name)
}

// record makes the read trace of an image its working set.
func (s *server) record(ctx context.Context, r recordRequest,
	refresh func(context.Context) error) (recordReply, error) {
	set, err := s.fs.Record(ctx, r.Name, fs.RecordOptions{Force: true})
	if err != nil {
		return recordReply{}, err
	}
	set, large := wss.Policy{MaxShare: r.MaxShare}.Apply(set)
	var text bytes.Buffer
	if _, err := set.WriteTo(&text); err != nil {
		return recordReply{}, fmt.Errorf("working set of %s: %w", r.Name, err)
	}
	cp, err := s.local.SetWorkingSet(ctx, r.Name, text.Bytes())
	if err != nil {
		return recordReply{}, err
	}
	reply := recordReply{
		Checkpoint: cp, Pages: set.Pages(), Runs: len(set.Runs), Window: set.Window.Seconds(),
	}
	if large != nil {
		reply.Warning = large.Error() + "; the rest of it was left out"
	}
	return reply, refresh(ctx)
}
