package fs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The client half of the tests: a process that uses the mount, because the process that serves it
// must not. It is this test binary again, told by the environment what to be. It does one operation
// for each line of JSON on its stdin, any number at once.

// A request is one operation of a client. The path of files is absolute.
type request struct {
	ID    int
	Op    string
	Path  string `json:",omitempty"`
	FD    int    `json:",omitempty"` // a number that open gave
	Map   int    `json:",omitempty"` // a number that map gave
	Flags int    `json:",omitempty"`
	Prot  int    `json:",omitempty"`
	Off   int64  `json:",omitempty"`
	Len   int    `json:",omitempty"`
	// Spec and GFNs are for pages that are touched and compared with what they must hold.
	Spec  *spec    `json:",omitempty"`
	GFNs  []uint64 `json:",omitempty"`
	Value byte     `json:",omitempty"`
	// Time asks for the time of each touch.
	Time bool `json:",omitempty"`
}

type response struct {
	ID    int
	Err   string        `json:",omitempty"`
	Errno syscall.Errno `json:",omitempty"`
	Bus   int           `json:",omitempty"` // pages that gave SIGBUS
	N     int64         `json:",omitempty"`
	Mode  uint32        `json:",omitempty"`
	Ino   uint64        `json:",omitempty"`
	Names []string      `json:",omitempty"`
	Data  []byte        `json:",omitempty"`
	NS    []int64       `json:",omitempty"`
	Took  time.Duration `json:",omitempty"`
}

type client struct {
	mu   sync.Mutex
	next int
	maps map[int][]byte
}

// clientMain is the life of a client process.
func clientMain() int {
	c := &client{maps: map[int][]byte{}}
	var out sync.Mutex
	enc := json.NewEncoder(os.Stdout)
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return 0
		}
		var req request
		if err := json.Unmarshal(line, &req); err != nil {
			fmt.Fprintln(os.Stderr, "client:", err)
			return 1
		}
		go func() {
			start := time.Now()
			res := c.do(&req)
			res.Took = time.Since(start)
			res.ID = req.ID
			out.Lock()
			defer out.Unlock()
			enc.Encode(res)
		}()
	}
}

// do runs one operation.
func (c *client) do(r *request) (res response) {
	op, ok := clientOps[r.Op]
	if !ok {
		return response{Err: "no operation " + r.Op}
	}
	if err := op(c, r, &res); err != nil {
		res.Err = err.Error()
		errors.As(err, &res.Errno)
	}
	return res
}

var clientOps = map[string]func(c *client, r *request, res *response) error{
	"open": func(_ *client, r *request, res *response) error {
		fd, err := unix.Open(r.Path, r.Flags|unix.O_CLOEXEC, 0)
		res.N = int64(fd)
		return err
	},
	"close": func(_ *client, r *request, _ *response) error { return unix.Close(r.FD) },
	"stat": func(_ *client, r *request, res *response) error {
		var st unix.Stat_t
		err := unix.Lstat(r.Path, &st)
		res.N, res.Mode, res.Ino = st.Size, st.Mode, st.Ino
		return err
	},
	"readdir": func(_ *client, r *request, res *response) error {
		entries, err := os.ReadDir(r.Path)
		for _, e := range entries {
			res.Names = append(res.Names, e.Name())
		}
		return err
	},
	"readfile": func(_ *client, r *request, res *response) (err error) {
		res.Data, err = os.ReadFile(r.Path)
		return err
	},
	"readlink": func(_ *client, r *request, res *response) error {
		s, err := os.Readlink(r.Path)
		res.Data = []byte(s)
		return err
	},
	"getxattr": func(_ *client, r *request, _ *response) error {
		_, err := unix.Getxattr(r.Path, "user.x", nil)
		return err
	},
	"access": func(_ *client, r *request, _ *response) error {
		return unix.Access(r.Path, uint32(r.Flags))
	},
	"truncate": func(_ *client, r *request, _ *response) error { return unix.Truncate(r.Path, 0) },
	"mkdir":    func(_ *client, r *request, _ *response) error { return unix.Mkdir(r.Path, 0o755) },
	"unlink":   func(_ *client, r *request, _ *response) error { return unix.Unlink(r.Path) },
	"create": func(_ *client, r *request, _ *response) error {
		_, err := unix.Open(r.Path, unix.O_CREAT|unix.O_WRONLY, 0o600)
		return err
	},
	"statfs": func(_ *client, r *request, res *response) error {
		var st unix.Statfs_t
		err := unix.Statfs(r.Path, &st)
		res.N = int64(st.Blocks)
		return err
	},
	"cached": func(_ *client, r *request, res *response) error {
		var st unix.Cachestat_t
		rng := unix.CachestatRange{Off: uint64(r.Off), Len: uint64(r.Len)}
		err := unix.Cachestat(uint(r.FD), &rng, &st, 0)
		res.N = int64(st.Cache)
		return err
	},
	"evict": func(_ *client, r *request, _ *response) error {
		return unix.Fadvise(r.FD, 0, 0, unix.FADV_DONTNEED)
	},
	"pread": func(_ *client, r *request, res *response) error {
		buf := make([]byte, r.Len)
		n, err := unix.Pread(r.FD, buf, r.Off)
		if n > 0 {
			res.Data = buf[:n]
		}
		return err
	},
	"pwrite": func(_ *client, r *request, _ *response) error {
		_, err := unix.Pwrite(r.FD, slices.Repeat([]byte{r.Value}, r.Len), r.Off)
		return err
	},
	"readall": (*client).readAll,
	"faults":  (*client).faults,
	"map": func(c *client, r *request, res *response) error {
		b, err := unix.Mmap(r.FD, r.Off, r.Len, r.Prot, r.Flags)
		if err != nil {
			return err
		}
		unix.Madvise(b, unix.MADV_RANDOM)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.next++
		c.maps[c.next] = b
		res.N = int64(c.next)
		return nil
	},
	"unmap": func(c *client, r *request, _ *response) error {
		b := c.mapping(r)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.maps, r.Map)
		return unix.Munmap(b)
	},
	"touch": (*client).touch,
	"poke": func(c *client, r *request, res *response) error {
		return faulting(func() { c.mapping(r)[r.Off] = r.Value }, res)
	},
	"peek": func(c *client, r *request, res *response) error {
		return faulting(func() { res.N = int64(c.mapping(r)[r.Off]) }, res)
	},
	"msync": func(c *client, r *request, _ *response) error {
		return unix.Msync(c.mapping(r), unix.MS_SYNC)
	},
}

func (c *client) mapping(r *request) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maps[r.Map]
}

// faulting runs fn and turns a SIGBUS into a count.
func faulting(fn func(), res *response) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if x := recover(); x != nil {
			res.Bus++
			err = fmt.Errorf("SIGBUS: %v", x)
		}
	}()
	fn()
	return nil
}

// touch reads pages through a mapping, in the order of GFNs, and compares them.
func (c *client) touch(r *request, res *response) (err error) {
	b := c.mapping(r)
	page := make([]byte, PageSize)
	for _, gfn := range r.GFNs {
		at := gfn*PageSize - uint64(r.Off)
		start := time.Now()
		bad := faulting(func() { copy(page, b[at:at+PageSize]) }, res)
		if r.Time {
			res.NS = append(res.NS, int64(time.Since(start)))
		}
		if bad == nil && r.Spec != nil {
			bad = r.Spec.check(gfn, page)
		}
		if bad != nil && err == nil {
			err = bad
		}
	}
	return err
}

// readAll reads a file in pieces of Len to its end, and compares.
func (c *client) readAll(r *request, res *response) error {
	buf := make([]byte, r.Len)
	for off := int64(0); ; {
		n, err := unix.Pread(r.FD, buf, off)
		if err != nil {
			return err
		}
		if n == 0 {
			res.N = off
			return nil
		}
		for i := 0; r.Spec != nil && i+PageSize <= n; i += PageSize {
			if err := r.Spec.check(uint64(off+int64(i))/PageSize, buf[i:i+PageSize]); err != nil {
				return err
			}
		}
		off += int64(n)
	}
}

// faults touches pages through a fresh mapping of FD, one byte each, pinned to CPU 0 as what it is
// compared with, and returns the time of each.
func (c *client) faults(r *request, res *response) error {
	b, err := unix.Mmap(r.FD, 0, r.Len, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	if err := unix.Madvise(b, unix.MADV_RANDOM); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &all)
	res.NS = make([]int64, len(r.GFNs))
	for i, gfn := range r.GFNs {
		start := time.Now()
		res.N += int64(b[gfn*PageSize])
		res.NS[i] = int64(time.Since(start))
	}
	return nil
}

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
