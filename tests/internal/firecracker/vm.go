package firecracker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
)

// Limit is how long a request may take before the process counts as hanging.
const Limit = 2 * time.Minute

// VM is a running process.
type VM struct {
	proc *proc.Process
	in   io.WriteCloser
	out  *os.File
	buf  *bufio.Reader
	mu   sync.Mutex // one request at a time
}

// Start starts a process, which ends with the test.
func Start(t testing.TB) *VM {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=1")
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
		t.Fatal(errors.Join(err, out.Close()))
	}
	v := &VM{proc: p, in: in, out: out, buf: bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		if err := p.Kill(10 * time.Second); err != nil {
			t.Errorf("VM: %v", err)
		}
		out.Close()
	})
	return v
}

// Pid of the process.
func (v *VM) Pid() int { return v.proc.Pid() }

// ErrEnded: the process ended before it answered.
var ErrEnded = errors.New("the VM has ended")

// Call sends a request and waits for the answer. What could not be done is in the answer.
func (v *VM) Call(r Request) (Response, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		return Response{}, err
	}
	_ = v.out.SetReadDeadline(time.Now().Add(Limit))
	_, err = v.in.Write(append(line, '\n'))
	var answer []byte
	if err == nil {
		answer, err = v.buf.ReadBytes('\n')
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE):
		return Response{}, ErrEnded
	case err != nil:
		return Response{}, fmt.Errorf("VM %d: %s: no answer: %w (%s)", v.Pid(), r.Op, err, proc.State(v.Pid()))
	}
	var a Response
	return a, json.Unmarshal(answer, &a)
}

// Must is Call for a request that must succeed, and find every page as it must be.
func (v *VM) Must(t testing.TB, r Request) Response {
	t.Helper()
	a, err := v.Call(r)
	if err != nil {
		t.Fatal(err)
	}
	if a.Error != "" {
		t.Fatalf("%s: %s", r.Op, a.Error)
	}
	if n := len(a.Wrong); n > 0 {
		t.Fatalf("%s: %d of %d pages are wrong: %v", r.Op, n, a.Pages, a.Wrong[:min(n, 10)])
	}
	return a
}

// Killed waits until the process was ended by SIGKILL.
func (v *VM) Killed(within time.Duration) error {
	err := v.proc.Wait(within)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			return nil
		}
	}
	if err == nil {
		err = errors.New("it ended with status 0")
	}
	return fmt.Errorf("VM %d was not killed: %w", v.Pid(), err)
}

// End ends the process as a VM that is shut down.
func (v *VM) End(t testing.TB) {
	t.Helper()
	v.in.Close()
	if err := v.proc.Wait(Limit); err != nil {
		t.Fatalf("VM: %v", err)
	}
}
