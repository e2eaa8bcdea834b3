package device

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
)

// gate is a writer that waits until it may write, and fails when told so.
type gate struct {
	entered chan struct{} // one for each write
	open    chan error    // what the write comes to

	mu  sync.Mutex // guards got
	got bytes.Buffer
}

func newGate() *gate { return &gate{entered: make(chan struct{}), open: make(chan error)} }

func (g *gate) Write(p []byte) (int, error) {
	g.entered <- struct{}{}
	err := <-g.open
	if errors.Is(err, io.ErrShortWrite) {
		p = p[:len(p)/2]
	} else if err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n, _ := g.got.Write(p)
	return n, err
}

func (g *gate) pass(t *testing.T, err error) {
	t.Helper()
	receive(t, g.entered, "a write")
	g.open <- err
}

func (o *output) puts(s string) {
	for _, b := range []byte(s) {
		o.put(b)
	}
}

// While the writer is blocked the guest goes on, and what is lost is said where it is missing.
func TestOutputOverflow(t *testing.T) {
	g := newGate()
	o := newOutput(g, quiet)
	o.puts("first")
	receive(t, g.entered, "the first write") // it has all of "first", or less
	full := strings.Repeat("x", outputLimit)
	o.puts(full)
	o.puts("lost")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flushed: %v", err)
	}
	g.open <- nil
	receive(t, g.entered, "the second write")
	o.puts("after")
	g.open <- nil
	g.pass(t, nil)
	check(t, o.flush(t.Context()))
	o.close()
	got := g.got.String()
	lost := int(o.lost)
	if lost < 4 || lost > 4+len("first") {
		t.Errorf("%d bytes lost", lost)
	}
	head, tail, ok := strings.Cut(got, "\r\n[")
	if !ok || !strings.HasPrefix(head, "firstxxx") ||
		!strings.HasSuffix(tail, " bytes of output lost]\r\nafter") {
		t.Errorf("%d bytes, the end is %q", len(got), got[max(0, len(got)-60):])
	}
	if len(head) != len("first")+outputLimit-(lost-4) {
		t.Errorf("%d bytes before the gap", len(head))
	}
}

// A writer that fails loses only what it was given.
func TestOutputErrors(t *testing.T) {
	g := newGate()
	o := newOutput(g, quiet)
	o.put('a')
	g.pass(t, errInjected)
	check(t, o.flush(t.Context()))
	o.put('b')
	g.pass(t, errInjected)
	check(t, o.flush(t.Context()))
	o.put('c')
	g.pass(t, nil)
	check(t, o.flush(t.Context()))
	if got := g.got.String(); got != "\r\n[2 bytes of output lost]\r\nc" || o.lost != 2 {
		t.Errorf("%q, %d lost", got, o.lost)
	}
	g.got.Reset()
	// A short write: the note before the next byte has the rest.
	o.mu.Lock()
	o.pending = append(o.pending, "0123"...)
	o.cond.Broadcast()
	o.mu.Unlock()
	g.pass(t, io.ErrShortWrite)
	check(t, o.flush(t.Context()))
	o.put('d')
	g.pass(t, nil)
	o.close()
	if got := g.got.String(); got != "01\r\n[2 bytes of output lost]\r\nd" || o.lost != 4 {
		t.Errorf("%q, %d lost", got, o.lost)
	}
	o.put('e') // to a closed one
	if o.lost != 5 {
		t.Errorf("%d lost", o.lost)
	}
}

// What was put before close is written.
func TestOutputClose(t *testing.T) {
	var w bytes.Buffer
	o := newOutput(&w, quiet)
	want := strings.Repeat("all of it ", 1000)
	o.puts(want)
	o.close()
	if w.String() != want {
		t.Errorf("%d of %d bytes", w.Len(), len(want))
	}
}
