package main

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/server"
)

// A gate that was shut holds until it is opened, or its waiter is to end; lines that it does not know change
// nothing.
func TestGate(t *testing.T) {
	g := newGate()
	r, w := io.Pipe()
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		g.listen(r)
	}()
	say := func(line string) {
		t.Helper()
		if _, err := io.WriteString(w, line+"\n\n"); err != nil { // it was taken when the empty line is
			t.Fatal(err)
		}
	}
	if err := g.wait(t.Context()); err != nil {
		t.Errorf("open: %v", err)
	}
	say(server.RepackPause)
	say(server.RepackPause)
	say("nonsense")
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() { waited <- g.wait(ctx) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("shut: %v", err)
	}
	go func() { waited <- g.wait(t.Context()) }()
	say(server.RepackGoOn)
	say(server.RepackGoOn)
	if err := <-waited; err != nil {
		t.Errorf("opened: %v", err)
	}
	if err := errors.Join(w.Close(), g.wait(t.Context())); err != nil {
		t.Error(err)
	}
	<-listening
}
