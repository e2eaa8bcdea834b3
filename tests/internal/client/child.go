package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv marks a client process.
const childEnv = "THAW_TEST_CLIENT"

// pageSize of guest memory, whatever the host's is.
const pageSize = 4096

// MainIfChild must be the first call of TestMain: in a client process it serves requests until
// its standard input ends and does not return.
func MainIfChild() {
	if os.Getenv(childEnv) == "" {
		return
	}
	runtime.LockOSThread() // CPU affinity and fault counters belong to the thread
	debug.SetPanicOnFault(true)
	debug.SetGCPercent(-1) // a collection while a page is read would count as part of its time
	c := &child{}
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			os.Exit(0)
		}
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			os.Exit(3)
		}
		answer := c.serve(r)
		if err := out.Encode(answer); err != nil {
			os.Exit(3)
		}
		runtime.GC()
	}
}

// child is the state of a client process: at most one open file.
type child struct {
	file *os.File
	mem  []byte
}

func (c *child) serve(r Request) Response {
	var a Response
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &before)
	start := time.Now()
	err := c.do(r, &a)
	a.Nanos = time.Since(start).Nanoseconds()
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &after)
	a.Minor, a.Major = after.Minflt-before.Minflt, after.Majflt-before.Majflt
	if err != nil {
		a.Error = err.Error()
		var errno unix.Errno
		if errors.As(err, &errno) {
			a.Errno = unix.ErrnoName(errno)
		}
	}
	return a
}

func (c *child) do(r Request, a *Response) error {
	switch r.Op {
	case "open":
		return c.open(r, a)
	case "close":
		return c.close()
	case "touch":
		return c.touch(r, a)
	case "pread":
		a.Data = make([]byte, r.Length)
		n, err := unix.Pread(int(c.file.Fd()), a.Data, r.Offset)
		a.Data = a.Data[:max(n, 0)]
		return err
	case "readall":
		return c.readAll(r, a)
	case "store":
		return c.store(r, a)
	case "msync":
		return unix.Msync(c.mem, unix.MS_SYNC)
	case "write":
		_, err := unix.Pwrite(int(c.file.Fd()), bytes.Repeat([]byte{r.Byte}, r.Length), r.Offset)
		return err
	case "truncate":
		return unix.Ftruncate(int(c.file.Fd()), r.Offset)
	case "populate":
		return unix.Madvise(c.mem[r.First*pageSize:][:r.Count*pageSize], unix.MADV_POPULATE_READ)
	case "cached":
		return c.cached(r, a)
	case "warm": // brings the named pages, and no others, of a file of the host into the page cache
		return c.warm(r)
	case "pin":
		var set unix.CPUSet
		set.Set(r.CPU)
		return unix.SchedSetaffinity(0, &set)
	case "dropcache": // of a file that is no mount's: what Path names
		return dropCache(r.Path)
	}
	return fmt.Errorf("unknown operation %q", r.Op)
}

func (c *child) open(r Request, a *Response) error {
	if err := c.close(); err != nil {
		return err
	}
	flags := unix.O_CLOEXEC
	if r.Map.ReadWrite {
		flags |= unix.O_RDWR
	}
	if r.Map.Direct {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(r.Path, flags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", r.Path, err)
	}
	c.file = os.NewFile(uintptr(fd), r.Path)
	st, err := c.file.Stat()
	if err != nil {
		return err
	}
	a.Size = st.Size()
	if r.Map.NoMap {
		return nil
	}
	prot, share := unix.PROT_READ, unix.MAP_SHARED
	if r.Map.Writable {
		prot |= unix.PROT_WRITE
	}
	if r.Map.Private {
		share = unix.MAP_PRIVATE
	}
	if c.mem, err = unix.Mmap(fd, 0, int(a.Size), prot, share); err != nil {
		return fmt.Errorf("mmap %s: %w", r.Path, err)
	}
	if r.Map.Random {
		return unix.Madvise(c.mem, unix.MADV_RANDOM)
	}
	return nil
}

func (c *child) close() error {
	var err error
	if c.mem != nil {
		err = unix.Munmap(c.mem)
		c.mem = nil
	}
	if c.file != nil {
		err = errors.Join(err, c.file.Close())
		c.file = nil
	}
	return err
}

// pages returns the page numbers that a request names.
func (r Request) pages() []uint64 {
	gfns := r.GFNs
	if gfns == nil {
		gfns = make([]uint64, r.Count)
		for i := range gfns {
			gfns[i] = r.First + uint64(i)
		}
	}
	if r.Order == "random" {
		rnd := rand.New(rand.NewPCG(r.Seed, 1))
		rnd.Shuffle(len(gfns), func(i, j int) { gfns[i], gfns[j] = gfns[j], gfns[i] })
	}
	return gfns
}

// touch reads one byte of each page, or all of it where there is a Source.
func (c *child) touch(r Request, a *Response) error {
	if c.mem == nil {
		return errors.New("nothing is mapped")
	}
	gfns := r.pages()
	a.Pages = uint64(len(gfns))
	if r.Times {
		a.NS = make([]int64, len(gfns))
	}
	var want []byte
	if r.Source != "" {
		src, err := mapWhole(r.Source)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(src) }()
		want = src
	}
	for i, gfn := range gfns {
		page := c.mem[gfn*pageSize:][:pageSize]
		var before time.Time
		if r.Times {
			before = time.Now()
		}
		ok := readable(page)
		if r.Times {
			a.NS[i] = time.Since(before).Nanoseconds()
		}
		if !ok {
			a.Lost = append(a.Lost, gfn)
		} else if want != nil && !bytes.Equal(page, want[gfn*pageSize:][:pageSize]) {
			a.Wrong = append(a.Wrong, gfn)
		}
	}
	return nil
}

// sink keeps the compiler from dropping the loads.
var sink atomic.Uint32

// readable loads one byte of the page; a SIGBUS becomes a panic (SetPanicOnFault) and false.
func readable(page []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	sink.Store(uint32(page[64]))
	return true
}

// store writes r.Byte to the first byte of each page.
func (c *child) store(r Request, a *Response) error {
	for _, gfn := range r.pages() {
		a.Pages++
		if !writable(c.mem[gfn*pageSize:][:pageSize], r.Byte) {
			a.Lost = append(a.Lost, gfn)
		}
	}
	return nil
}

func writable(page []byte, b byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	page[0] = b
	return true
}

// readAll reads the whole file with reads of r.Length bytes and compares it with Source. Pages
// that could not be read are Lost, one page at a time.
func (c *child) readAll(r Request, a *Response) error {
	src, err := mapWhole(r.Source)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(src) }()
	buf := make([]byte, r.Length)
	for off := int64(0); off < int64(len(src)); {
		n, err := unix.Pread(int(c.file.Fd()), buf, off)
		if err != nil || n <= 0 {
			// Find the page by reading one at a time, then continue after it.
			n, err = unix.Pread(int(c.file.Fd()), buf[:pageSize], off)
			if err != nil || n != pageSize {
				a.Lost = append(a.Lost, uint64(off/pageSize))
				n = pageSize
				off += int64(n)
				continue
			}
		}
		for p := 0; p+pageSize <= n; p += pageSize {
			if !bytes.Equal(buf[p:p+pageSize], src[off+int64(p):][:pageSize]) {
				a.Wrong = append(a.Wrong, uint64(off/pageSize)+uint64(p/pageSize))
			}
		}
		off += int64(n)
		a.Pages += uint64(n / pageSize)
	}
	return nil
}

// mapWhole maps a file of the host's own disk.
func mapWhole(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
}

// dropCache writes back and evicts a file of the host's own disk.
func dropCache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fsync(int(f.Fd())); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// cached asks the kernel how many pages of the file are in its page cache (Linux 6.5 and later).
func (c *child) cached(r Request, a *Response) error {
	var stat unix.Cachestat_t
	span := unix.CachestatRange{Off: uint64(r.Offset), Len: uint64(r.Length)}
	err := unix.Cachestat(uint(c.file.Fd()), &span, &stat, 0)
	a.Cached = stat.Cache
	return err
}

// warm reads pages one by one, without read-ahead.
func (c *child) warm(r Request) error {
	fd := int(c.file.Fd())
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	var page [pageSize]byte
	for _, gfn := range r.pages() {
		if _, err := unix.Pread(fd, page[:], int64(gfn)*pageSize); err != nil {
			return err
		}
	}
	return nil
}
