package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Prober says how much of a file is in the page cache. It must be another process than the
// server: asking means opening a file of the mount.
type Prober interface {
	// Cached is the number of pages of the file at path that are in the page cache.
	Cached(ctx context.Context, path string) (pages uint64, err error)
	// Owns says whether an open by this thread comes from the prober, which needs no restore.
	Owns(tid uint32) bool
}

// ErrNoProber: the kernel has no cachestat(2) (before 6.5), or the prober is gone. Second opens
// then push what should be there once more.
var ErrNoProber = errors.New("the kernel cannot be asked what is in the page cache")

// A ProcessProber is a Prober that asks a process which runs ProberMain. A process that does not
// answer in time is ended and another started, once in restartEvery at most.
type ProcessProber struct {
	start func() *exec.Cmd
	tid   atomic.Uint32 // of the process that is asked; 0: there is none

	mu      sync.Mutex // one question at a time
	child   *proberProcess
	started time.Time
	closed  bool
	// ends waits for processes that were ended.
	ends sync.WaitGroup
}

// A proberProcess is one process of a ProcessProber.
type proberProcess struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // closed when the process has ended its output
}

const (
	// probeTimeout is how long an answer may take. After that there is no point in asking again.
	probeTimeout = 2 * time.Second
	// restartEvery bounds how often a process is started.
	restartEvery = 10 * time.Second
)

const proberHello = "thaw-prober 1"

// StartProber runs a command that does nothing but call ProberMain. ErrNoProber if the kernel
// cannot tell. ctx bounds the life of the processes.
func StartProber(ctx context.Context, name string, args ...string) (*ProcessProber, error) {
	env := os.Environ() // as it is now, for every process
	p := &ProcessProber{start: func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = env
		cmd.Stderr = os.Stderr
		return cmd
	}}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.startLocked(ctx); err != nil {
		p.ends.Wait()
		return nil, fmt.Errorf("start prober: %w", err)
	}
	return p, nil
}

// startLocked starts a process and waits for its hello.
func (p *ProcessProber) startLocked(ctx context.Context) error {
	p.started = time.Now()
	cmd := p.start()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c := &proberProcess{cmd: cmd, stdin: stdin, lines: make(chan string, 1)}
	p.child = c
	p.ends.Go(func() {
		defer close(c.lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			c.lines <- in.Text()
		}
	})
	tid, err := c.hello(ctx)
	if err != nil {
		p.endLocked()
		return err
	}
	p.tid.Store(tid)
	return nil
}

// endLocked ends the process; nobody waits for it here, since it may hang in the mount.
func (p *ProcessProber) endLocked() {
	c := p.child
	p.child = nil
	p.tid.Store(0)
	c.stdin.Close()
	c.cmd.Process.Kill()
	p.ends.Go(func() {
		for range c.lines {
		}
		c.cmd.Wait()
	})
}

func (c *proberProcess) hello(ctx context.Context) (tid uint32, err error) {
	line, err := c.answer(ctx)
	if err != nil {
		return 0, err
	}
	rest, ok := strings.CutPrefix(line, proberHello+" ")
	if !ok {
		return 0, fmt.Errorf("%w: %.80q", ErrNoProber, line)
	}
	n, err := strconv.ParseUint(rest, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: %.80q", ErrNoProber, line)
	}
	return uint32(n), nil
}

// answer waits for the next line.
func (c *proberProcess) answer(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	select {
	case line, ok := <-c.lines:
		if !ok {
			return "", fmt.Errorf("%w: the prober has ended", ErrNoProber)
		}
		return line, nil
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", ErrNoProber, ctx.Err())
	}
}

// Owns implements Prober.
func (p *ProcessProber) Owns(tid uint32) bool { return tid != 0 && tid == p.tid.Load() }

// Cached implements Prober.
func (p *ProcessProber) Cached(ctx context.Context, path string) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return 0, ErrNoProber
	case p.child == nil && time.Since(p.started) < restartEvery:
		return 0, fmt.Errorf("%w: it failed and is not started again yet", ErrNoProber)
	case p.child == nil:
		if err := p.startLocked(ctx); err != nil {
			return 0, fmt.Errorf("start prober again: %w", err)
		}
	}
	// Wait for the answer also if the caller is gone: otherwise the next caller would get it.
	line, err := p.child.ask(context.WithoutCancel(ctx), path)
	if err != nil {
		p.endLocked()
		return 0, err
	}
	pages, err := strconv.ParseUint(line, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("ask residency of %s: %s", path, line)
	}
	return pages, nil
}

func (c *proberProcess) ask(ctx context.Context, path string) (string, error) {
	if _, err := fmt.Fprintf(c.stdin, "%q\n", path); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoProber, err)
	}
	return c.answer(ctx)
}

// Close ends the process and waits for it, and for those that were ended before.
func (p *ProcessProber) Close() error {
	p.mu.Lock()
	p.closed = true
	if p.child != nil {
		p.endLocked()
	}
	p.mu.Unlock()
	p.ends.Wait()
	return nil
}

// ProberMain is the main function of that process: it answers questions on stdin until that ends, and
// returns the exit code of the process. A command that calls it does nothing else.
func ProberMain() int {
	runtime.LockOSThread() // the server knows it by its thread
	if err := cachestatWorks(); err != nil {
		fmt.Printf("no cachestat: %v\n", err)
		return 0
	}
	fmt.Printf("%s %d\n", proberHello, unix.Gettid())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		path, err := strconv.Unquote(in.Text())
		if err != nil {
			fmt.Printf("bad question: %v\n", err)
			continue
		}
		pages, err := cached(path)
		if err != nil {
			fmt.Printf("%s\n", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Printf("%d\n", pages)
	}
	return 0
}

func cachestatWorks() error {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer exe.Close()
	var st unix.Cachestat_t
	err = unix.Cachestat(uint(exe.Fd()), &unix.CachestatRange{}, &st, 0)
	if err == unix.ENOSYS {
		return err
	}
	return nil
}

// cached opens a file and asks the kernel how much of it is in the page cache.
func cached(path string) (uint64, error) {
	// Not os.Open: that would register the file with the poller, a POLL request on a FUSE mount.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &st, 0); err != nil {
		return 0, err
	}
	return st.Cache, nil
}
