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
	"time"

	"golang.org/x/sys/unix"
)

// A Prober says how much of a file is in the page cache. It must be another process than the
// server: asking means opening a file of the mount.
type Prober interface {
	// Cached is the number of pages of the file at path that are in the page cache.
	Cached(ctx context.Context, path string) (pages uint64, err error)
	// Owns says whether an open by this thread is the prober's own, which asks for no restore.
	Owns(tid uint32) bool
}

// ErrNoProber: the kernel has no cachestat(2) (before 6.5), or the prober is gone. Second opens
// then push what should be there once more.
var ErrNoProber = errors.New("residency cannot be asked")

// A ProcessProber is a Prober that asks a process which runs ProberMain.
type ProcessProber struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	tid   uint32
	lines chan string // closed when the process has ended its output

	mu   sync.Mutex // one question at a time
	dead bool       // guarded by mu
}

// probeTimeout is how long an answer may take; asking again after that is of no use.
const probeTimeout = 2 * time.Second

const proberHello = "thaw-prober 1"

// StartProber runs a command that does nothing but call ProberMain. ErrNoProber if the kernel
// cannot tell. ctx bounds the life of the process.
func StartProber(ctx context.Context, name string, args ...string) (*ProcessProber, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start prober: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start prober: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start prober: %w", err)
	}
	p := &ProcessProber{cmd: cmd, stdin: stdin, lines: make(chan string, 1)}
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	if err := p.hello(ctx); err != nil {
		p.Close()
		return nil, fmt.Errorf("start prober: %w", err)
	}
	return p, nil
}

func (p *ProcessProber) hello(ctx context.Context) error {
	line, err := p.answer(ctx)
	if err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(line, proberHello+" ")
	if !ok {
		return fmt.Errorf("%w: %.80q", ErrNoProber, line)
	}
	tid, err := strconv.ParseUint(rest, 10, 32)
	if err != nil {
		return fmt.Errorf("%w: %.80q", ErrNoProber, line)
	}
	p.tid = uint32(tid)
	return nil
}

// answer waits for the next line.
func (p *ProcessProber) answer(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return "", fmt.Errorf("%w: the prober has ended", ErrNoProber)
		}
		return line, nil
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", ErrNoProber, ctx.Err())
	}
}

// Owns implements Prober.
func (p *ProcessProber) Owns(tid uint32) bool { return tid == p.tid }

// Cached implements Prober.
func (p *ProcessProber) Cached(ctx context.Context, path string) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return 0, ErrNoProber
	}
	if _, err := fmt.Fprintf(p.stdin, "%q\n", path); err != nil {
		p.dead = true
		return 0, fmt.Errorf("%w: %w", ErrNoProber, err)
	}
	line, err := p.answer(ctx)
	if err != nil {
		// Its answer may come yet, and would be taken for that to the next question.
		p.dead = true
		return 0, err
	}
	pages, err := strconv.ParseUint(line, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("ask residency of %s: %s", path, line)
	}
	return pages, nil
}

// Close ends the process and waits for it.
func (p *ProcessProber) Close() error {
	p.stdin.Close()
	// It ends at the end of its input, unless it hangs in the mount.
	t := time.AfterFunc(probeTimeout, func() { p.cmd.Process.Kill() })
	defer t.Stop()
	for range p.lines {
	}
	return p.cmd.Wait()
}

// ProberMain is the other half: it answers questions on stdin until that ends, and returns the exit
// code of the process. A command that calls it does nothing else.
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
