package fs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// killTime is how long servers are killed under their clients.
var killTime = flag.Duration("kills", 0, "how long TestServersKilled kills servers")

// A READ and an OPEN that a killed server had begun are answered by the next one, once each.
func TestTakeOverInFlight(t *testing.T) {
	x, y := spec{Name: "a", Pages: 100, Seed: 1}, spec{Name: "b", Pages: 100, Seed: 2}
	e := newEstate(t, successorConfig{Specs: []spec{x, y}, Policy: PolicyLazy, Hang: 50})
	c := e.client()
	fd := c.open(e.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(10), Spec: &x})
	touch := c.start(request{Op: "touch", Map: m, GFNs: []uint64{60, 61, 5}, Spec: &x})
	pread := c.start(request{Op: "pread", FD: fd, Off: 70 * PageSize, Len: PageSize})
	eventually(t, "two READs hang", func() bool { return e.ask("a", "").Outstanding == 2 })
	e.kill()
	if err := e.try(func(s *successorConfig) { s.HangOpen = true; s.Hang = 80 }); err != nil {
		t.Fatal(err)
	}
	// The image cannot be opened by this one: they wait on.
	open := c.start(request{Op: "open", Path: e.path("b/memory")})
	e.kill()
	e.next()
	if res := touch(); res.Err != "" {
		t.Errorf("touch: %s", res.Err)
	}
	if res := pread(); res.Err != "" || x.check(70, res.Data) != nil {
		t.Errorf("pread: %s", res.Err)
	}
	res := open()
	if res.Err != "" {
		t.Fatalf("open: %s", res.Err)
	}
	if r := e.ask("a", ""); r.InUse != 1 || r.Takeovers != 2 {
		t.Errorf("a: %d open files, %d takeovers", r.InUse, r.Takeovers)
	}
	if r := e.ask("b", ""); r.InUse != 1 {
		t.Errorf("b: %d open files", r.InUse)
	}
	c.do(request{Op: "touch", Map: c.mapFile(int(res.N), y.Pages), GFNs: upTo(y.Pages), Spec: &y})
	c.close(fd)
	c.do(request{Op: "unmap", Map: m})
	eventually(t, "a is not in use", func() bool { return e.ask("a", "").InUse == 0 })
}

// What is open and what was read to its half goes on, whatever kind of file it is.
func TestTakeOverFiles(t *testing.T) {
	x := wsSpec()
	x.Files = map[string]string{"state": strings.Repeat("cpu", 10_000)}
	e := newEstate(t, successorConfig{Specs: []spec{x}, Policy: PolicyWorkingSetFull})
	c := e.client()
	state := c.open(e.path("a/state"), unix.O_RDONLY)
	stats := c.open(e.path("a/stats.json"), unix.O_RDONLY)
	mem := c.open(e.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(mem, x.Pages)
	e.kill()
	e.next()
	c.do(request{Op: "touch", Map: m, GFNs: (&fakeImage{spec: x}).workingSet(), Spec: &x})
	// The kernel may have evicted some meanwhile.
	if r := e.ask("a", ""); r.Stats.LazyPages > 16 || r.InUse != 1 {
		t.Errorf("the page cache is not what it was: %d pages were asked for, %d files are open",
			r.Stats.LazyPages, r.InUse)
	}
	c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
	res := c.do(request{Op: "pread", FD: state, Off: 20_000, Len: 3})
	if want := x.Files["state"][20_000:20_003]; string(res.Data) != want {
		t.Errorf("state: %q", res.Data)
	}
	// The text that was shown is gone with the server that made it: never a part of another one.
	if res := c.try(request{Op: "pread", FD: stats, Len: 100}); res.Errno != unix.ESTALE {
		t.Errorf("stats.json of another server: %q %q", res.Data, res.Err)
	}
	c.do(request{Op: "readfile", Path: e.path("a/stats.json")})
	if names := c.do(request{Op: "readdir", Path: e.path("a")}).Names; !slices.Contains(names, "memory") {
		t.Errorf("readdir: %v", names)
	}
}

// A restore that its server has not brought to its end is brought to its end by the next one.
func TestTakeOverRestore(t *testing.T) {
	x := wsSpec()
	e := newEstate(t, successorConfig{Specs: []spec{x}, Policy: PolicyWorkingSetFull})
	c := e.client()
	m := c.mapFile(c.open(e.path("a/memory"), unix.O_RDONLY), x.Pages)
	e.kill()
	l, err := openLedger(dup(t, e.ledger), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for k := range l.rows { // as if the kill had fallen into it
		l.change(k, func(r *ledgerRow) bool { r.Restoring = true; return true })
	}
	e.next()
	eventually(t, "its working set was brought", func() bool { return e.ask("a", "").Stats.Prefetches == 1 })
	c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
}

func dup(t testing.TB, f *os.File) *os.File {
	t.Helper()
	own, err := dupFile(int(f.Fd()), f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// A checkpoint that got another name while a machine has it open is served by its content.
func TestTakeOverRenamed(t *testing.T) {
	x := spec{Name: "a", ID: "1", Pages: 1000, Seed: 1}
	e := newEstate(t, successorConfig{Specs: []spec{x}, Policy: PolicyLazy})
	c := e.client()
	m := c.mapFile(c.open(e.path("a/memory"), unix.O_RDONLY), x.Pages)
	clone := c.mapFile(c.open(e.path("a/clones/c/memory"), unix.O_RDWR), x.Pages)
	e.kill()
	renamed := x
	renamed.Name = "b"
	if err := e.try(func(s *successorConfig) { s.Specs = []spec{renamed} }); err != nil {
		t.Fatal(err)
	}
	for _, m := range []int{m, clone} {
		c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
	}
	c.mapFile(c.open(e.path("b/memory"), unix.O_RDONLY), x.Pages)
	// One that is not in the store any more is an error at once.
	e.kill()
	if err := e.try(func(s *successorConfig) { s.Specs = nil }); err != nil {
		t.Fatal(err)
	}
	if res := c.try(request{Op: "open", Path: e.path("b/memory")}); res.Err == "" {
		t.Error("a checkpoint that is not there is opened")
	}
}

// A server that cannot go on changes nothing; and one that could lose requests does not try.
func TestTakeOverRefused(t *testing.T) {
	x := spec{Name: "a", Pages: 100, Seed: 1}
	e := newEstate(t, successorConfig{Specs: []spec{x}, Policy: PolicyLazy})
	c := e.client()
	m := c.mapFile(c.open(e.path("a/memory"), unix.O_RDONLY), x.Pages)
	conn := Connection{Device: int(e.device.Fd()), Ledger: int(e.ledger.Fd())}
	if err := CheckTakeOver(conn, Options{}); err != nil {
		t.Errorf("the same options: %v", err)
	}
	var bad *AgreementError
	others := map[string]Options{"Rights": {Rights: Rights{Others: true}}, "ReadAhead": {ReadAhead: 64 << 10}}
	for what, o := range others {
		if err := CheckTakeOver(conn, o); !errors.As(err, &bad) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	e.kill()
	if err := e.try(func(s *successorConfig) { s.AllowOther = true }); err == nil {
		t.Fatal("a server with other options goes on")
	}
	store := newFakeStore(x)
	for what, change := range map[string]func(*ledgerHead){
		"a kernel that does not send again": func(h *ledgerHead) { h.Init = initMessage(0, 0) },
		"another format":                    func(h *ledgerHead) { h.Format = 99 },
	} {
		l, err := newLedger(readTestHead(t, e.ledger), testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		l.setHead(change)
		srv, err := TakeOver(t.Context(), store, Connection{conn.Device, int(l.file.Fd())}, Options{})
		if err == nil {
			t.Fatalf("%s: it goes on: %v", what, srv)
		}
		if lost := errors.Is(err, ErrLost); lost != strings.Contains(what, "kernel") {
			t.Errorf("%s: %v", what, err)
		}
		l.close()
	}
	e.next()
	c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
}

func readTestHead(t testing.TB, ledger *os.File) ledgerHead {
	t.Helper()
	h, err := readHead(ledger)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Servers that let go of a mount one after the other lose no request, and need no kernel that sends them
// again: none is.
func TestDrain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount(2)")
	}
	x := spec{Name: "a", Pages: 4_000, Seed: 1}
	store := newFakeStore(x)
	srv, err := Mount(t.Context(), store, mountDir(t),
		Options{Log: testLog(t), Policy: PolicyLazy, TakeOver: true})
	if err != nil {
		t.Fatal(err)
	}
	abort := func() { Abort(srv.mnt) }
	var work sync.WaitGroup
	for n := range 3 {
		c := startClient(t, abort, nil)
		fd := c.open(srv.mnt+fmt.Sprintf("/a/clones/%d/memory", n), unix.O_RDONLY)
		m := c.mapFile(fd, x.Pages)
		order := upTo(x.Pages)
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		work.Go(func() {
			for len(order) > 0 {
				if res := c.try(request{Op: "touch", Map: m, GFNs: order[:100], Spec: &x}); res.Err != "" {
					t.Errorf("client %d: %s", n, res.Err)
					break
				}
				order = order[100:]
			}
		})
	}
	for range 10 {
		c, _ := srv.Connection()
		device, ledger := dupOf(t, c.Device), dupOf(t, c.Ledger)
		ctx, cancel := context.WithTimeout(t.Context(), opTimeout)
		err := srv.Drain(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if info, err := (Connection{device, ledger}).Info(); err != nil || !info.Drained || !info.Survivable() {
			t.Errorf("%+v, %v", info, err)
		}
		o := Options{Log: testLog(t), Policy: PolicyLazy}
		srv, err = TakeOver(t.Context(), store, Connection{device, ledger}, o)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(device)
		unix.Close(ledger)
	}
	work.Wait()
	if n := srv.InUse("a"); n != 3 {
		t.Errorf("%d open files", n)
	}
	abort()
	srv.Wait()
}

func dupOf(t testing.TB, fd int) int {
	t.Helper()
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// Servers are killed at any time, while clients read through mappings of an image and of clones that are made
// cold again and again: no page is wrong, and none is lost.
func TestServersKilled(t *testing.T) {
	x := wsSpec()
	e := newEstate(t, successorConfig{Specs: []spec{x}, Slow: 20 * time.Microsecond})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex
	var longest time.Duration
	touched := 0
	for n, path := range []string{"a/memory", "a/memory", "a/clones/x/memory", "a/clones/y/memory"} {
		c := e.client()
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				res := c.try(request{Op: "open", Path: e.path(path)})
				if res.Err != "" {
					t.Errorf("open %s: %s", path, res.Err)
					return
				}
				fd := int(res.N)
				m := c.mapFile(fd, x.Pages)
				order := upTo(x.Pages)
				rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
				res = c.try(request{Op: "touch", Map: m, GFNs: order[:1024], Spec: &x, Time: true})
				if res.Err != "" {
					t.Errorf("%s: %s", path, res.Err)
					return
				}
				mu.Lock()
				longest = max(longest, time.Duration(slices.Max(res.NS)))
				touched += len(res.NS)
				mu.Unlock()
				c.do(request{Op: "unmap", Map: m})
				c.try(request{Op: "evict", FD: fd})
				c.close(fd)
			}
		})
	}
	kills := 0
	for end := time.Now().Add(max(*killTime, 3*time.Second)); time.Now().Before(end); kills++ {
		// When in the life of a server it is killed is what is tried out.
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		if rand.IntN(4) == 0 {
			e.drain()
		} else {
			e.kill()
		}
		e.next()
	}
	close(stop)
	clients.Wait()
	t.Logf("%d ends of servers, %d pages touched, the longest touch took %v", kills, touched, longest)
	eventually(t, "all files are closed", func() bool { return e.ask("a", "").InUse == 0 })
}

// A heirModel is what clients must see of one memory file.
type heirModel struct {
	fds      []int
	zero     map[uint64]bool
	poisoned bool
}

// A random life of clones, with their holes, their ends and their writes, over many servers, against a plain
// model of what their clients must see.
func TestTakeOverLife(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	x := spec{Name: "a", Pages: 500, Seed: 1, ZeroEvery: 7}
	e := newEstate(t, successorConfig{Specs: []spec{x}, Policy: PolicyLazy})
	c := e.client()
	model := map[string]*heirModel{}
	for i := range 5 {
		name := fmt.Sprintf("a/clones/c%d/memory", i)
		if i == 0 {
			name = "a/memory"
		}
		model[name] = &heirModel{zero: map[uint64]bool{}}
	}
	names := slices.Sorted(maps.Keys(model))
	steps := 150
	if *killTime > 0 {
		steps = 5000
	}
	for range steps {
		name := names[rnd.IntN(len(names))]
		m := model[name]
		clone := name != "a/memory"
		switch op := rnd.IntN(20); {
		case op < 5:
			flags := unix.O_RDONLY
			if clone {
				flags = unix.O_RDWR
			}
			res := c.try(request{Op: "open", Path: e.path(name), Flags: flags})
			if m.poisoned != (res.Errno == unix.EIO) || !m.poisoned && res.Err != "" {
				t.Fatalf("open %s: %q, poisoned: %v", name, res.Err, m.poisoned)
			}
			if res.Err == "" {
				m.fds = append(m.fds, int(res.N))
			}
		case len(m.fds) == 0:
		case op < 9:
			c.close(m.fds[len(m.fds)-1])
			if m.fds = m.fds[:len(m.fds)-1]; len(m.fds) == 0 && !m.poisoned {
				clear(m.zero)
			}
		case op < 12 && clone:
			first, count := rnd.Uint64N(x.Pages), 1+rnd.Uint64N(30)
			count = min(count, x.Pages-first)
			res := c.try(request{
				Op: "fallocate", FD: m.fds[0], Off: int64(first * PageSize), Len: int(count * PageSize),
				Flags: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
			})
			if m.poisoned != (res.Err != "") {
				t.Fatalf("discard in %s: %q, poisoned: %v", name, res.Err, m.poisoned)
			}
			for gfn := first; gfn < first+count && !m.poisoned; gfn++ {
				m.zero[gfn] = true
			}
		case op < 17:
			gfn := rnd.Uint64N(x.Pages)
			res := c.try(request{Op: "pread", FD: m.fds[0], Off: int64(gfn * PageSize), Len: PageSize})
			if why := m.wrong(&x, gfn, res); why != "" {
				t.Fatalf("page %d of %s: %s", gfn, name, why)
			}
		case op == 17 && clone && rnd.IntN(8) == 0:
			if res := c.try(request{Op: "pwrite", FD: m.fds[0], Len: 10, Value: 1}); res.Errno != unix.EROFS {
				t.Fatalf("write to %s: %q", name, res.Err)
			}
			m.poisoned = true
			eventually(t, "its pages are dropped", func() bool {
				return c.try(request{Op: "pread", FD: m.fds[0], Len: PageSize}).Errno == unix.EIO
			})
		case op == 18:
			e.kill()
			e.next()
		case op == 19:
			e.drain()
			e.next()
		}
		want := 0
		for _, m := range model {
			want += len(m.fds)
		}
		if rnd.IntN(10) == 0 {
			eventually(t, fmt.Sprintf("%d files are open", want), func() bool { return e.ask("a", "").InUse == want })
		}
	}
}

// wrong says what is wrong with a page that was read; "" if nothing is.
func (m *heirModel) wrong(x *spec, gfn uint64, res response) string {
	switch {
	case m.poisoned && res.Err == "":
		return "it can be read, after a write"
	case m.poisoned:
		return ""
	case res.Err != "":
		return res.Err
	case m.zero[gfn]:
		if len(strings.Trim(string(res.Data), "\x00")) > 0 {
			return "it was discarded, and is there"
		}
		return ""
	}
	if err := x.check(gfn, res.Data); err != nil {
		return err.Error()
	}
	return ""
}

// The kernel takes back single lookups while it still knows a node from another server; and all of them at
// its end.
func TestInheritedLookups(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a", Pages: 10}))
	t.Cleanup(s.close)
	e := s.tree.entry("a")
	n := s.tree.adopt(e.cloneNodes("c"))[2]
	s.tree.lookup(n)
	if s.tree.forget(n.id, 1) != nil || s.tree.node(n.id) == nil {
		t.Error("a node that the kernel knows is gone")
	}
	s.tree.lookup(n)
	if s.tree.forget(n.id, 5) != n || s.tree.node(n.id) != nil {
		t.Error("a node that the kernel has forgotten is there")
	}
	n = s.tree.adopt(e.cloneNodes("c"))[2]
	s.kernel = &fakeKernel{}
	if s.tree.disown(n.id) != n || s.tree.node(n.id) != nil {
		t.Error("a node that the kernel never knew is there")
	}
	n = s.tree.adopt(e.cloneNodes("c"))[2]
	s.tree.lookup(n)
	if s.tree.disown(n.id) != nil || s.tree.node(n.id) != n {
		t.Error("a node that the kernel has looked up meanwhile is gone")
	}
}

// Notifications end before the gate closes, and none begins after that.
func TestGate(t *testing.T) {
	begun, free := make(chan struct{}), make(chan struct{})
	g := &gate{notifier: &slowKernel{begun: begun, free: free}}
	pushed := make(chan fuse.Status)
	go func() { pushed <- g.InodeNotifyStoreCache(1, 0, nil) }()
	<-begun
	closed := make(chan struct{})
	go func() {
		g.close()
		close(closed)
	}()
	eventually(t, "the gate closes", func() bool { return g.EntryNotify(1, "x") == errGate })
	select {
	case <-closed:
		t.Error("the gate is closed, and somebody is in it")
	default:
	}
	close(free)
	if st := <-pushed; !st.Ok() {
		t.Error(st)
	}
	<-closed
	if g.InodeNotifyStoreCache(1, 0, nil) != errGate || g.InodeNotify(1, 0, 0) != errGate {
		t.Error("the gate lets notifications through")
	}
}

// A slowKernel takes its time over pushes.
type slowKernel struct {
	notifier
	begun, free chan struct{}
}

func (k *slowKernel) InodeNotifyStoreCache(uint64, int64, []byte) fuse.Status {
	close(k.begun)
	<-k.free
	return fuse.OK
}

func (k *slowKernel) EntryNotify(uint64, string) fuse.Status { return fuse.OK }
