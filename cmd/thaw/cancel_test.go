package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/index"
)

// slowStore is a storeAPI whose import takes until its context ends.
type slowStore struct {
	storeAPI
	begun, ended chan struct{}
}

func (s *slowStore) Import(ctx context.Context, _ importRequest, p progressFunc) (importReply,
	error) {
	p(control.Progress{Stage: "reading", Unit: "bytes", Done: 1, Total: 2})
	close(s.begun)
	<-ctx.Done()
	close(s.ended)
	return importReply{}, ctx.Err()
}

func (s *slowStore) List(context.Context) ([]index.Checkpoint, error) {
	return []index.Checkpoint{{Name: "a", MemoryBytes: 4096, Guest: json.RawMessage(`{"x":1}`)}}, nil
}

// serveStore answers for a store as a server of a mount does, and returns its other end.
func serveStore(t *testing.T, s storeAPI) (*remoteStore, *int) {
	t.Helper()
	dir := t.TempDir()
	l, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	changes := 0
	changed := func(context.Context) error { changes++; return nil }
	srv := control.Serve(l, storeVerbs(s, changed), classify, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := srv.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	a := &app{log: slog.New(slog.DiscardHandler)}
	api, err := a.openStore(t.Context(), dir, index.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	remote, ok := api.(*remoteStore)
	if !ok {
		t.Fatalf("%s has a server, but openStore gave %T", filepath.Join(dir, control.SocketName), api)
	}
	return remote, &changes
}

func TestCancelOfACommandEndsTheServersWork(t *testing.T) {
	s := &slowStore{begun: make(chan struct{}), ended: make(chan struct{})}
	remote, changes := serveStore(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	go func() { <-s.begun; cancel() }()
	_, err := remote.Import(ctx, importRequest{Path: "/x", Name: "x"},
		func(control.Progress) { seen++ })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the command ended with %v", err)
	}
	<-s.ended // or the test hangs
	if *changes != 0 {
		t.Error("the tree was told of a change that did not happen")
	}
	list, err := remote.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "a" || string(list[0].Guest) != `{"x":1}` {
		t.Errorf("after that the server answers %v, %v", list, err)
	}
}
