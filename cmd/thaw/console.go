package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/thawfs/thaw/vmm"
)

// console is an open one. Without a terminal there is no input.
type console struct {
	out   io.Writer
	in    io.ReadCloser // nil: none
	close func() error
}

// openConsole connects a machine's console: to a file, or to the terminal that the command runs on,
// which is then in raw mode until close: every key goes to the guest, except ctrl-a x, which ends the
// machine.
func openConsole(a *app, file string) (c console, err error) {
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return c, err
		}
		return console{out: f, close: f.Close}, nil
	}
	c = console{out: a.stdout, close: func() error { return nil }}
	if a.json {
		c.out = a.stderr // stdout is for the report
	}
	stdin, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(stdin.Fd())) {
		return c, nil
	}
	// Opened again, so that a read of it can be ended by closing it; and without making the
	// descriptor non-blocking that the shell has too.
	tty, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", stdin.Fd()), os.O_RDONLY, 0)
	if err != nil {
		return c, fmt.Errorf("terminal: %w", err)
	}
	state, err := term.MakeRaw(int(stdin.Fd()))
	if err != nil {
		return c, errors.Join(fmt.Errorf("terminal: %w", err), tty.Close())
	}
	a.note("ctrl-a x ends the machine, ctrl-a ctrl-a sends one ctrl-a\r")
	c.in = &escape{tty: tty}
	c.close = func() error {
		err := term.Restore(int(stdin.Fd()), state)
		a.note("") // the next output begins a line
		return err
	}
	return c, nil
}

// escape reads what is typed, and looks for the sequence that ends the machine.
type escape struct {
	tty  io.ReadCloser
	seen bool // the last byte was the escape
}

const escapeKey = 1 // ctrl-a

// Read implements io.Reader. Of the escape sequence nothing is passed on, but of one that has no
// meaning all is.
func (e *escape) Read(p []byte) (int, error) {
	typed := make([]byte, max(len(p)/2, 1))
	n, err := e.tty.Read(typed)
	out := p[:0]
	for _, b := range typed[:n] {
		switch {
		case e.seen && b == 'x':
			return len(out), vmm.ErrLeave
		case e.seen && b == escapeKey:
			out = append(out, escapeKey)
			e.seen = false
		case e.seen:
			out = append(out, escapeKey, b)
			e.seen = false
		case b == escapeKey:
			e.seen = true
		default:
			out = append(out, b)
		}
	}
	return len(out), err
}

// Close ends a Read.
func (e *escape) Close() error { return e.tty.Close() }
