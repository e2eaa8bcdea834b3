package fs

import (
	"encoding/json"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A proc is a client process as its test sees it.
type proc struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	abort func()
	end   func() // ends it; done by the test's cleanup otherwise

	mu      sync.Mutex
	next    int
	waiting map[int]chan response
}

// opTimeout is the longest that an operation may take: nothing here takes seconds unless it hangs.
const opTimeout = 30 * time.Second

// startClient starts a client; abort frees it when it hangs in the mount.
func startClient(t testing.TB, abort func(), attr *syscall.SysProcAttr) *proc {
	t.Helper()
	// A goroutine in a page fault holds its processor, and a collection would wait for it.
	cmd := selfCommand("client", "GOMAXPROCS=32", "GOGC=off")
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proc{t: t, cmd: cmd, stdin: stdin, abort: abort, waiting: map[int]chan response{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for dec := json.NewDecoder(stdout); ; {
			var res response
			if dec.Decode(&res) != nil {
				return
			}
			p.mu.Lock()
			ch := p.waiting[res.ID]
			delete(p.waiting, res.ID)
			p.mu.Unlock()
			ch <- res
		}
	}()
	p.end = sync.OnceFunc(func() {
		stdin.Close()
		select {
		case <-done:
		case <-time.After(opTimeout):
			t.Error("client does not end; its connection is cut")
			abort()
			cmd.Process.Kill()
			<-done
		}
		cmd.Wait()
	})
	t.Cleanup(p.end)
	return p
}

// start begins an operation; the function that it returns waits for its end.
func (p *proc) start(r request) func() response {
	p.t.Helper()
	ch := make(chan response, 1)
	p.mu.Lock()
	p.next++
	r.ID = p.next
	p.waiting[r.ID] = ch
	line, err := json.Marshal(r)
	if err == nil {
		_, err = p.stdin.Write(append(line, '\n'))
	}
	p.mu.Unlock()
	if err != nil {
		p.t.Fatal(err)
	}
	return func() response {
		p.t.Helper()
		select {
		case res := <-ch:
			return res
		case <-time.After(opTimeout):
			p.abort()
			p.t.Fatalf("%s %s hangs", r.Op, r.Path)
			panic("not reached")
		}
	}
}

// try is one operation, which may fail.
func (p *proc) try(r request) response {
	p.t.Helper()
	return p.start(r)()
}

// do is one operation, which must not fail.
func (p *proc) do(r request) response {
	p.t.Helper()
	res := p.try(r)
	if res.Err != "" {
		p.t.Fatalf("%s %s: %s", r.Op, r.Path, res.Err)
	}
	return res
}

func (p *proc) open(path string, flags int) int {
	p.t.Helper()
	return int(p.do(request{Op: "open", Path: path, Flags: flags}).N)
}

func (p *proc) close(fd int) {
	p.t.Helper()
	p.do(request{Op: "close", FD: fd})
}

// mapFile maps a file privately, as a VMM does.
func (p *proc) mapFile(fd int, pages uint64) int {
	p.t.Helper()
	return int(p.do(request{
		Op: "map", FD: fd, Len: int(pages * PageSize),
		Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_PRIVATE,
	}).N)
}
