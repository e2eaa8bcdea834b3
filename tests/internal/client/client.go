package client

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
)

// Limit is how long a client may take for one request before it counts as hanging.
const Limit = 60 * time.Second

// Client is a running client process.
type Client struct {
	proc *proc.Process
	in   io.WriteCloser
	out  *os.File
	buf  *bufio.Reader
	mu   sync.Mutex // one request at a time
}

// Start starts a client that ends with the test. Cleanup kills it; if that does not help, because
// it hangs in the kernel, the test fails, and unhang is called, if it is not nil, to free it.
func Start(t testing.TB, unhang func()) *Client {
	t.Helper()
	return StartAs(t, nil, unhang)
}

// StartAs starts a client with the rights of another user.
func StartAs(t testing.TB, cred *syscall.Credential, unhang func()) *Client {
	t.Helper()
	self := executable(t, cred != nil)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = theirs
	p, err := proc.Start(cmd)
	theirs.Close()
	if err != nil {
		out.Close()
		t.Fatalf("start a client: %v", err)
	}
	c := &Client{proc: p, in: in, out: out, buf: bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		if err := p.Kill(5 * time.Second); err != nil {
			t.Errorf("client: %v", err)
			if unhang != nil {
				unhang()
				_ = p.Kill(5 * time.Second)
			}
		}
		out.Close()
	})
	return c
}

// executable is the test binary itself, or a copy of it in a directory that other users may enter.
func executable(t testing.TB, shared bool) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !shared {
		return self
	}
	dir, err := os.MkdirTemp("", "thaw-client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "client")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(copied, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return copied
}

// Pid of the client process.
func (c *Client) Pid() int { return c.proc.Pid() }

// Call sends one request and waits for its answer, at most for Limit. An error means that the client
// has died or hangs; an error of the operation itself is in the response.
func (c *Client) Call(r Request) (Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		return Response{}, err
	}
	_ = c.out.SetReadDeadline(time.Now().Add(Limit))
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return Response{}, fmt.Errorf("client %d: %s: %w", c.Pid(), r.Op, err)
	}
	answer, err := c.buf.ReadBytes('\n')
	if err != nil {
		return Response{}, fmt.Errorf("client %d: %s: no answer: %w (%s)", c.Pid(), r.Op, err,
			proc.State(c.Pid()))
	}
	var a Response
	if err := json.Unmarshal(answer, &a); err != nil {
		return Response{}, fmt.Errorf("client %d: %s: %w", c.Pid(), r.Op, err)
	}
	return a, nil
}

// Do is Call for a request that must be answered, whatever the answer is.
func (c *Client) Do(t testing.TB, r Request) Response {
	t.Helper()
	a, err := c.Call(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Must is Do for a request that must succeed.
func (c *Client) Must(t testing.TB, r Request) Response {
	t.Helper()
	a := c.Do(t, r)
	if a.Error != "" {
		t.Fatalf("%s: %s", r.Op, a.Error)
	}
	return a
}

// Open opens a file, and maps it unless m.NoMap; what was open before is closed.
func (c *Client) Open(t testing.TB, path string, m Map) Response {
	t.Helper()
	return c.Must(t, Request{Op: "open", Path: path, Map: m})
}

// Close closes and unmaps.
func (c *Client) Close(t testing.TB) {
	t.Helper()
	c.Must(t, Request{Op: "close"})
}

// Right touches pages and requires that each can be read and has the bytes of r.Source.
func (c *Client) Right(t testing.TB, r Request) Response {
	t.Helper()
	r.Op = "touch"
	a := c.Must(t, r)
	if len(a.Wrong)+len(a.Lost) > 0 {
		t.Fatalf("of %d pages %d are wrong (%v) and %d lost (%v)", a.Pages,
			len(a.Wrong), First(a.Wrong), len(a.Lost), First(a.Lost))
	}
	return a
}

// First returns at most ten elements, for messages.
func First(list []uint64) []uint64 { return list[:min(len(list), 10)] }
