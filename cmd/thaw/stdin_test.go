package main

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
)

// TestStdinEnds: a read of a pipe that nobody writes to ends with the context.
func TestStdinEnds(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	in := stdin{ctx, r}
	if _, err := w.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(in, b); err != nil || string(b) != "abc" {
		t.Fatalf("%q, %v", b, err)
	}
	ended := make(chan error)
	go func() {
		_, err := in.Read(b)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a read that was waiting: %v", err)
	}
	if _, err := in.Read(b); !errors.Is(err, context.Canceled) {
		t.Errorf("a later read: %v", err)
	}
	in = stdin{t.Context(), r}
	w.Close()
	if _, err := in.Read(b); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}
