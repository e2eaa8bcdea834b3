package fs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
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
	// Zero has touch compare with zeros.
	Zero bool `json:",omitempty"`
	// Time asks for the time of each touch.
	Time bool `json:",omitempty"`
	// Huge asks for huge pages of a mapping, as QEMU does.
	Huge bool `json:",omitempty"`
}

type response struct {
	ID    int
	Err   string        `json:",omitempty"`
	Errno syscall.Errno `json:",omitempty"`
	Bus   int           `json:",omitempty"` // pages that gave SIGBUS
	N     int64         `json:",omitempty"`
	Mode  uint32        `json:",omitempty"`
	Ino   uint64        `json:",omitempty"`
	UID   uint32        `json:",omitempty"`
	Names []string      `json:",omitempty"`
	Data  []byte        `json:",omitempty"`
	NS    []int64       `json:",omitempty"`
	Links uint64        `json:",omitempty"`
	Room  int64         `json:",omitempty"` // in blocks of 512 bytes
	// Extents are where data begins and ends.
	Extents []int64       `json:",omitempty"`
	Took    time.Duration `json:",omitempty"`
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
		res.N, res.Mode, res.Ino, res.UID = st.Size, st.Mode, st.Ino, st.Uid
		res.Links, res.Room = uint64(st.Nlink), st.Blocks
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
	"fallocate": func(_ *client, r *request, _ *response) error {
		return unix.Fallocate(r.FD, uint32(r.Flags), r.Off, int64(r.Len))
	},
	"direct": func(_ *client, r *request, res *response) error {
		buf, err := unix.Mmap(-1, 0, r.Len, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		defer unix.Munmap(buf)
		n, err := unix.Pread(r.FD, buf, r.Off)
		res.N = int64(n)
		return err
	},
	"seek": func(_ *client, r *request, res *response) (err error) {
		res.N, err = unix.Seek(r.FD, r.Off, r.Flags)
		return err
	},
	"extents": func(_ *client, r *request, res *response) (err error) {
		res.Extents, err = extentsOf(r.FD)
		return err
	},
	"readdata": func(_ *client, r *request, _ *response) error {
		list, err := extentsOf(r.FD)
		for ; len(list) > 0 && err == nil; list = list[2:] {
			_, err = unix.Pread(r.FD, make([]byte, list[1]-list[0]), list[0])
		}
		return err
	},
	"readall": (*client).readAll,
	"faults":  (*client).faults,
	"map": func(c *client, r *request, res *response) error {
		b, err := unix.Mmap(r.FD, r.Off, r.Len, r.Prot, r.Flags)
		if err != nil {
			return err
		}
		advice := unix.MADV_RANDOM
		if r.Huge {
			advice = unix.MADV_HUGEPAGE
		}
		unix.Madvise(b, advice)
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
		switch {
		case bad != nil:
		case r.Zero && len(bytes.TrimLeft(page, "\x00")) > 0:
			bad = fmt.Errorf("page %d: not zero: %x…", gfn, page[:16])
		case !r.Zero && r.Spec != nil:
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
