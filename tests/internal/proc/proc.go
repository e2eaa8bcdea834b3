// Package proc starts the processes of the tests so that none of them outlives its test.
//
// Each process is started with a parent-death signal, from an OS thread that lives as long as the
// process (the kernel sends that signal when the *thread* ends). So the children of a test binary that
// is killed end, too. Kill has a time limit: if a process hangs in the kernel, as a client of a dead
// FUSE server can, Kill fails and the test does not hang. State says which processes are in such a
// state.
package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is a started child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // written before done is closed
}

// Start starts cmd and waits for it in the background.
func Start(cmd *exec.Cmd) (*Process, error) {
	return StartOn(cmd, func() error { return nil })
}

// StartOn is Start, but first calls a function on the thread that starts the child, which inherits the
// thread's properties, such as a seccomp filter.
func StartOn(cmd *exec.Cmd, prepare func() error) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread lives and ends with this goroutine
		err := prepare()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Pid of the child.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the child ended; nil while it runs or after status 0.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// ExitCode is the status of a child that has ended; -1 if a signal ended it.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signal sends a signal; a child that has ended is not an error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Wait waits for the end of the child, at most for the given time.
func (p *Process) Wait(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		return &HangError{Pid: p.Pid(), After: limit, State: State(p.Pid())}
	}
}

// Kill sends SIGKILL and waits for the end. Only a child that cannot be killed is an error.
func (p *Process) Kill(limit time.Duration) error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	var hang *HangError
	if err := p.Wait(limit); errors.As(err, &hang) {
		return err
	}
	return nil
}

// HangError says that a process did not end in time.
type HangError struct {
	Pid   int
	After time.Duration
	State string
}

func (e *HangError) Error() string {
	return fmt.Sprintf("process %d has not ended after %v (%s)", e.Pid, e.After, e.State)
}

// State describes a process and its threads: the scheduler's letter and, where it may be read,
// the kernel function that each thread waits in.
func State(pid int) string {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return "gone"
	}
	seen := map[string]int{}
	for _, t := range tasks {
		base := fmt.Sprintf("/proc/%d/task/%s/", pid, t.Name())
		stat, _ := os.ReadFile(base + "stat")
		wchan, _ := os.ReadFile(base + "wchan")
		letter := "?"
		if i := strings.LastIndexByte(string(stat), ')'); i >= 0 && len(stat) > i+2 {
			letter = string(stat[i+2])
		}
		seen[letter+" "+string(wchan)]++
	}
	var parts []string
	for s, n := range seen {
		parts = append(parts, fmt.Sprintf("%dx %s", n, s))
	}
	return strings.Join(parts, ", ")
}
