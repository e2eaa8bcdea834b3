package lab

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
	"github.com/thawfs/thaw/fs"
)

// process is a server or a VMM of a testbed. It has a process group of its own: a ctrl-C on the
// terminal reaches the lab alone, which then ends its processes in order.
type process struct {
	name   string
	mnt    string // what it serves; "": it is no server
	cmd    *exec.Cmd
	stdout bytes.Buffer // to be looked at after done
	stderr tail
	done   chan struct{} // closed when it has ended
	err    error         // of Wait; after done, as ended
	ended  time.Time
}

// stopPatience is how long a process may take to end when it is asked to.
const stopPatience = 15 * time.Second

// newProcess prepares a process that is not started yet.
func newProcess(name string, cmd *exec.Cmd) *process {
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return p
}

// watch waits for the end of a process that was started.
func (p *process) watch() {
	go func() {
		p.err, p.ended = p.cmd.Wait(), time.Now()
		close(p.done)
	}()
}

// wait waits for the process to end by itself; its failure becomes an error with its exit code and
// the end of what it wrote to stderr.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure is the error of a process that has ended; nil where it ended well.
func (p *process) failure() error {
	if p.err == nil {
		return nil
	}
	code := exitcode.Failure
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.Exited() {
		code = exitcode.Code(exit.ExitCode())
	}
	if text := p.stderr.String(); text != "" {
		return exitcode.Errorf(code, "%s: %s", p.name, text)
	}
	return exitcode.With(code, fmt.Errorf("%s: %w", p.name, p.err))
}

// stop asks the process to end, waits for stopPatience, then kills it. It returns when the process
// has ended; one that has ended before is not an error. When ctx has ended nobody waits for what it would
// still do: it is killed at once.
func (p *process) stop(ctx context.Context) error {
	if ctx.Err() != nil && p.cutOff() == nil {
		p.kill()
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
		return nil
	case <-time.After(stopPatience):
	}
	p.kill()
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.name, stopPatience)
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// cutOff takes the mount away that a process serves: one that is killed while it waits for the kernel would
// not end.
func (p *process) cutOff() error {
	if p.mnt == "" {
		return nil
	}
	if err := fs.Abort(p.mnt); !errors.Is(err, fs.ErrNotMounted) {
		return err
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

// maxTail is how much it keeps at least, in bytes.
const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if n := len(t.text); n > 2*maxTail {
		t.text = append(t.text[:0], t.text[n-maxTail:]...)
	}
	return len(p), nil
}

// String is the text without the name that thaw puts before its errors.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimPrefix(strings.TrimSpace(string(t.text)), "thaw: ")
}
