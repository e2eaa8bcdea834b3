package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// child is a process of a lab: this program again, as a server or a VMM. It has a process group
// of its own: a ctrl-C on the terminal reaches the lab alone, which then ends its children in
// order.
type child struct {
	name string
	cmd  *exec.Cmd
	out  bytes.Buffer // stdout, to be looked at after done
	said lastWords    // stderr
	done chan struct{}
	err  error // of Wait; after done
}

// childGrace is how long a child may take to end when it is asked to.
const childGrace = 15 * time.Second

// newChild prepares a child; start or startServing begins it.
func newChild(name string, args ...string) *child {
	c := &child{name: name, cmd: selfCommand(args...), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.said
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

// start begins the child.
func (c *child) start() error {
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	c.watch()
	return nil
}

// startServing begins the child and waits until it is ready.
func (c *child) startServing(ctx context.Context) error {
	if err := startUntilReady(ctx, c.cmd); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	c.watch()
	return nil
}

func (c *child) watch() {
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
}

// wait waits for the child to end by itself; its failure becomes an error with its exit code and
// its last words.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended says whether the child has ended.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *child) failure() error {
	if c.err == nil {
		return nil
	}
	code := exitcode.Failure
	var exit *exec.ExitError
	if errors.As(c.err, &exit) && exit.Exited() {
		code = exitcode.Code(exit.ExitCode())
	}
	if words := c.said.String(); words != "" {
		return exitcode.Errorf(code, "%s: %s", c.name, words)
	}
	return exitcode.With(code, fmt.Errorf("%s: %w", c.name, c.err))
}

// stop asks the child to end, waits for childGrace, then kills it. It returns when it has ended.
func (c *child) stop() error {
	if c.ended() {
		return nil
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-c.done:
		return nil
	case <-time.After(childGrace):
	}
	_ = c.cmd.Process.Kill()
	<-c.done
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", c.name, childGrace)
}

// lastWords keeps the end of what a process said.
type lastWords struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

const maxLastWords = 4096

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if n := len(l.text); n > 2*maxLastWords {
		l.text = append(l.text[:0], l.text[n-maxLastWords:]...)
	}
	return len(p), nil
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimPrefix(strings.TrimSpace(string(l.text)), "thaw: ")
}
