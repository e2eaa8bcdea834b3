package firecracker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv marks such a process.
const childEnv = "THAW_TEST_FIRECRACKER"

const (
	pageSize = 4096
	hugePage = 2 << 20
)

// MainIfChild must be called at the begin of TestMain: in such a process it serves requests until its
// standard input ends, and does not return.
func MainIfChild() {
	if os.Getenv(childEnv) == "" {
		return
	}
	runtime.LockOSThread() // an affinity is the thread's
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(16) // a thread that waits for a page keeps its processor
	c := &child{}
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			os.Exit(0)
		}
		var r Request
		var a Response
		if err = json.Unmarshal(line, &r); err == nil {
			err = c.do(r, &a)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			os.Exit(3)
		}
	}
}

// child is the process: its memory, and a plain model of what it must hold.
type child struct {
	unit    uint64   // its pages' size
	regions [][]byte // in the order of the image
	source  []byte
	model   []page
	uffd    int
	conn    *net.UnixConn
}

// A page of the model is what the image has, or zeros once it was given back, with a mark that was written.
type page struct {
	zeros bool
	mark  uint64
}

// markAt is where in a page its mark is.
const markAt = 1024

func (c *child) do(r Request, a *Response) error {
	switch r.Op {
	case "hand":
		return c.hand(r)
	case "send":
		return c.send(r, []byte(r.Text))
	case "live":
		return c.live(r, a)
	case "touch":
		for _, gfn := range r.GFNs {
			start := time.Now()
			sink.Store(uint32(c.page(gfn)[64]))
			if r.Times {
				a.NS = append(a.NS, time.Since(start).Nanoseconds())
			}
			c.check(gfn, a)
		}
		return nil
	case "check":
		for gfn := range uint64(len(c.model)) {
			c.check(gfn, a)
		}
		return nil
	case "pin":
		var set unix.CPUSet
		set.Set(r.CPU)
		return unix.SchedSetaffinity(0, &set)
	case "resident":
		return c.resident(a)
	case "remove":
		return c.remove(r.First, r.Count)
	case "unmap":
		return unix.Munmap(c.regions[len(c.regions)-1])
	}
	return fmt.Errorf("unknown operation %q", r.Op)
}

// sink keeps the compiler from leaving out loads.
var sink atomic.Uint32

// hand makes the memory and hands it over.
func (c *child) hand(r Request) error {
	if err := c.make(r); err != nil {
		return err
	}
	text := []byte(r.Text)
	if r.Text == "" {
		text = c.message(r)
	}
	r.Descriptors = max(r.Descriptors, 1)
	return c.send(r, text)
}

// make maps memory like the source and registers it.
func (c *child) make(r Request) error {
	src, err := os.Open(r.Source)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if c.source, err = unix.Mmap(int(src.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return err
	}
	c.unit = max(r.PageSize, pageSize)
	features := r.Features
	switch features {
	case 0:
		features = FeatureRemove
	case NoFeatures:
		features = 0
	}
	if c.uffd, err = userfault(features); err != nil {
		return fmt.Errorf("userfaultfd: %w", err)
	}
	c.model = make([]page, st.Size()/pageSize)
	left := uint64(st.Size())
	for _, size := range append(r.Splits, 0) {
		if size == 0 {
			size = left
		}
		left -= size
		flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
		if c.unit == hugePage {
			flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB | 21<<unix.MAP_HUGE_SHIFT
		}
		mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			return fmt.Errorf("map memory: %w", err)
		}
		if err := register(c.uffd, mem); err != nil {
			return fmt.Errorf("register memory: %w", err)
		}
		c.regions = append(c.regions, mem)
	}
	return nil
}

// message is what Firecracker sends.
func (c *child) message(r Request) []byte {
	var regions []map[string]any
	offset := uint64(0)
	for _, mem := range c.regions {
		m := map[string]any{
			"base_host_virt_addr": address(mem), "size": len(mem), "offset": offset,
			"page_size": c.unit, "page_size_kib": c.unit,
		}
		if r.Old {
			delete(m, "page_size")
		}
		regions = append(regions, m)
		offset += uint64(len(mem))
	}
	for _, l := range r.Lies {
		regions[l.Region][l.Field] = l.Value
	}
	text, _ := json.Marshal(regions)
	return text
}

// send connects and sends a message, and the descriptor with its first part.
func (c *child) send(r Request, text []byte) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.Socket, Net: "unix"})
	if err != nil {
		return err
	}
	c.conn = conn // Firecracker keeps it open
	var rights []byte
	if r.Descriptors > 0 {
		fds := make([]int, r.Descriptors)
		for i := range fds {
			fds[i] = c.uffd
		}
		rights = unix.UnixRights(fds...)
	}
	for i, n := 0, max(r.Parts, 1); i < n; i++ {
		part := text[len(text)*i/n : len(text)*(i+1)/n]
		sent, _, err := conn.WriteMsgUnix(part, rights, nil)
		if err == nil && sent < len(part) {
			_, err = conn.Write(part[sent:])
		}
		if r.Op == "send" && errors.Is(err, unix.EPIPE) {
			break // it was refused already
		}
		if err != nil {
			return err
		}
		rights = nil
	}
	if r.Close {
		return conn.Close()
	}
	return nil
}

// page is a page of memory.
func (c *child) page(gfn uint64) []byte {
	at := gfn * pageSize
	for _, mem := range c.regions {
		if at < uint64(len(mem)) {
			return mem[at:][:pageSize]
		}
		at -= uint64(len(mem))
	}
	panic(fmt.Sprintf("no page %d", gfn))
}

var zeros [pageSize]byte

// check compares a page with the model.
func (c *child) check(gfn uint64, a *Response) {
	a.Pages++
	got, want := c.page(gfn), c.source[gfn*pageSize:][:pageSize]
	m := c.model[gfn]
	if m.zeros {
		want = zeros[:]
	}
	ok := bytes.Equal(got[:markAt], want[:markAt]) && bytes.Equal(got[markAt+8:], want[markAt+8:])
	mark := binary.LittleEndian.Uint64(got[markAt:])
	if m.mark != 0 {
		ok = ok && mark == m.mark
	} else {
		ok = ok && mark == binary.LittleEndian.Uint64(want[markAt:])
	}
	if !ok {
		a.Wrong = append(a.Wrong, gfn)
	}
}

// remove gives pages back, as a balloon does.
func (c *child) remove(first, count uint64) error {
	mem, at := c.regions[0], first*pageSize
	for i := 0; at >= uint64(len(mem)); i++ {
		at -= uint64(len(mem))
		mem = c.regions[i+1]
	}
	if err := unix.Madvise(mem[at:][:count*pageSize], unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("give back %d pages from %d on: %w", count, first, err)
	}
	for gfn := first; gfn < first+count; gfn++ {
		c.model[gfn] = page{zeros: true}
	}
	return nil
}

// removeWatched is remove, maybe while another thread looks at these pages: it may see what they were,
// or zeros.
func (c *child) removeWatched(first, count uint64, watched bool) error {
	var other sync.WaitGroup
	if watched {
		other.Go(func() {
			page := make([]byte, pageSize)
			for gfn := first; gfn < first+count; gfn++ {
				copy(page, c.page(gfn))
			}
		})
	}
	defer other.Wait()
	return c.remove(first, count)
}

// resident counts the pages that are there.
func (c *child) resident(a *Response) error {
	for _, mem := range c.regions {
		vec := make([]byte, len(mem)/pageSize)
		if err := mincore(mem, vec); err != nil {
			return err
		}
		for _, v := range vec {
			a.Pages += uint64(v & 1)
		}
	}
	return nil
}

// stretch is how many pages in a row one thread has to itself: 32, or those of a huge page.
func (c *child) stretch() uint64 { return max(32, c.unit/pageSize) }

// live lives in several threads at once. Each has stretches of memory to itself, so that it knows what
// they hold.
func (c *child) live(r Request, a *Response) error {
	var work sync.WaitGroup
	answers, errs := make([]Response, r.Threads), make([]error, r.Threads)
	for i := range r.Threads {
		work.Go(func() {
			runtime.LockOSThread()
			errs[i] = c.liveAs(i, r, &answers[i])
		})
	}
	work.Wait()
	for _, b := range answers {
		a.Pages, a.Removed, a.Wrong = a.Pages+b.Pages, a.Removed+b.Removed, append(a.Wrong, b.Wrong...)
	}
	return errors.Join(errs...)
}

func (c *child) liveAs(thread int, r Request, a *Response) error {
	rnd := rand.New(rand.NewPCG(r.Seed, uint64(thread)))
	all := uint64(len(c.model))
	stretches := all / c.stretch() / uint64(r.Threads)
	for range r.Steps {
		first := (rnd.Uint64N(stretches)*uint64(r.Threads) + uint64(thread)) * c.stretch()
		gfn := first + rnd.Uint64N(c.stretch())
		what := rnd.IntN(10)
		switch what {
		case 0, 1, 2:
			mark := rnd.Uint64() | 1
			binary.LittleEndian.PutUint64(c.page(gfn)[markAt:], mark)
			c.model[gfn].mark = mark
		case 3, 5:
			count := 1 + rnd.Uint64N(first+c.stretch()-gfn)
			if c.unit == hugePage {
				gfn, count = first, c.stretch()
			}
			a.Removed++
			if err := c.removeWatched(gfn, count, what == 5); err != nil {
				return err
			}
		case 4: // in a row
			for g := gfn; g < first+c.stretch(); g++ {
				c.check(g, a)
			}
			continue
		}
		c.check(gfn, a)
	}
	return nil
}
