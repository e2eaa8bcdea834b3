package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
)

// Pager is a running `thaw uffd`.
type Pager struct {
	Socket string

	t              testing.TB
	proc           *proc.Process
	stdout, stderr string // files
	args           []string
}

// PagerReport is what it prints that the tests look at.
type PagerReport struct {
	PID        int     `json:"pid"`
	End        string  `json:"end"`
	SetPages   uint64  `json:"set_pages"`
	SetSeconds float64 `json:"set_seconds"`
	Faults     uint64  `json:"faults"`
	FaultP50   float64 `json:"fault_p50_seconds"`
	Near       uint64  `json:"near_pages"`
	Zeros      uint64  `json:"zero_pages"`
	Removed    uint64  `json:"removed_pages"`
}

// Uffd starts `thaw uffd` for a checkpoint of a store or a mount, and waits until its socket is there.
func Uffd(t testing.TB, path, name string, flags ...string) *Pager {
	t.Helper()
	// The path of a socket is at most 107 bytes: not below the test's own directory.
	dir, err := os.MkdirTemp("", "thaw-uffd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return UffdAt(t, filepath.Join(dir, "vm.sock"), path, name, flags...)
}

// UffdAt is Uffd with a given socket.
func UffdAt(t testing.TB, socket, path, name string, flags ...string) *Pager {
	t.Helper()
	dir := t.TempDir()
	p := &Pager{Socket: socket, t: t, stdout: filepath.Join(dir, "stdout"), stderr: filepath.Join(dir, "stderr")}
	stdout, err := os.Create(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	stderr, err := os.Create(p.stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	ready, notify := notifySocket(t)
	p.args = append([]string{"uffd", path, name, "--socket", p.Socket, "--json"}, flags...)
	cmd := Command(p.args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if p.proc, err = proc.Start(cmd); err != nil {
		t.Fatalf("start the pager: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the pager (%s):\n%s", proc.State(p.Pid()), p.Log())
		}
		if err := p.proc.Kill(10 * time.Second); err != nil {
			t.Errorf("pager: %v", err)
		}
		if s := slurp(p.stderr); strings.Contains(s, "DATA RACE") || strings.Contains(s, "panic:") {
			t.Errorf("the pager crashed:\n%s", s)
		}
	})
	awaitReady(t, ready, p.proc, p.Log)
	return p
}

// Pid of the pager.
func (p *Pager) Pid() int { return p.proc.Pid() }

// Log is what it has said so far.
func (p *Pager) Log() string { return slurp(p.stderr) }

// Kill kills it with SIGKILL.
func (p *Pager) Kill() {
	p.t.Helper()
	if err := p.proc.Kill(10 * time.Second); err != nil {
		p.t.Fatalf("pager: %v", err)
	}
}

// Terminate asks it to end.
func (p *Pager) Terminate() {
	p.t.Helper()
	if err := p.proc.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("pager: %v", err)
	}
}

// End waits for its end, and gives what it printed and its status.
func (p *Pager) End() Result {
	p.t.Helper()
	err := p.proc.Wait(time.Minute)
	var hang *proc.HangError
	if errors.As(err, &hang) {
		p.t.Fatalf("the pager does not end: %v\n%s", err, p.Log())
	}
	return Result{Args: p.args, Stdout: slurp(p.stdout), Stderr: slurp(p.stderr), Code: p.proc.ExitCode()}
}

// Report waits for its end, requires success, and gives what it has done.
func (p *Pager) Report() (r PagerReport) {
	p.t.Helper()
	end := p.End()
	if end.Code != 0 {
		p.t.Fatal(end)
	}
	if err := json.Unmarshal([]byte(end.Stdout), &r); err != nil {
		p.t.Fatalf("%v\nno report: %v", end, err)
	}
	return r
}

// FailsAs waits for its end, and requires that it fails with the error of this name.
func (p *Pager) FailsAs(name string) Result {
	p.t.Helper()
	end := p.End()
	if end.Code == 0 || end.ErrorName() != name {
		p.t.Errorf("want a failure %q, got %q: %v", name, end.ErrorName(), end)
	}
	return end
}
