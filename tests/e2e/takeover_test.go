package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/proc"
	"github.com/thawfs/thaw/tests/internal/race"
)

// killTime is how long servers are killed under guests.
var killTime = flag.Duration("kills", 0,
	"how long servers are killed under guests (default: 3s, 90s in the long run)")

// TestDaemonKilled: of the death of its server a client notices nothing but the time, and the mount ends
// as any
// other.
func TestDaemonKilled(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy")
	c := h.Client(t)
	c.Open(t, h.Path("vm/clones/a/memory"), client.Map{ReadWrite: true, Private: true, Random: true})
	quarter := small.Pages / 4
	for round := range uint64(4) {
		pid := h.Pid()
		c.Right(t, client.Request{First: round * quarter, Count: quarter, Source: source})
		if !h.KillServer() {
			t.Fatalf("there is no server to kill\n%s", h.Log())
		}
		c.Right(t, client.Request{First: (3 - round) * quarter, Count: quarter, Order: "random", Source: source})
		if now := h.Pid(); now == pid || now == 0 {
			t.Errorf("the server is process %d, and was %d", now, pid)
		}
	}
	// The next server knows what is in use, and commands find it.
	cli.Fails(t, "busy", "rm", store, "vm")
	cli.Fails(t, "busy", "umount", h.Dir)
	cli.OK(t, "stats", h.Dir)
	c.Close(t)
	cli.OK(t, "umount", h.Dir)
	h.Ended(10 * time.Second)
	cli.OK(t, "check", store, "--read-data")
}

// TestHeldEnds: a mount whose server was killed can be ended in every way, also by its holder.
func TestHeldEnds(t *testing.T) {
	for name, end := range map[string]func(h *cli.Held){
		"abort":       func(h *cli.Held) { cli.OK(t, "umount", "--abort", h.Dir) },
		"SIGTERM":     func(h *cli.Held) { _ = syscall.Kill(h.Holder(), syscall.SIGTERM) },
		"detach":      func(h *cli.Held) { cli.OK(t, "umount", "--detach", h.Dir) },
		"umount(8)":   func(h *cli.Held) { _ = syscall.Unmount(h.Dir, syscall.MNT_DETACH) },
		"kill of all": func(h *cli.Held) { _ = syscall.Kill(h.Holder(), syscall.SIGKILL); h.KillServer() },
	} {
		t.Run(name, func(t *testing.T) {
			store, source := storeWith(t, tiny)
			h := cli.MountHeld(t, store, "--restore=lazy")
			c := h.Client(t)
			c.Open(t, h.Path("vm/memory"), client.Map{Private: true})
			c.Right(t, client.Request{Count: tiny.Pages / 2, Source: source})
			h.KillServer()
			c.Right(t, client.Request{Count: tiny.Pages, Source: source})
			c.Close(t)
			end(h)
			h.Ended(15 * time.Second)
		})
	}
}

// TestDetachedKilled: a mount that is out of the tree and in use survives, too, until it is aborted.
func TestDetachedKilled(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy")
	c := h.Client(t)
	c.Open(t, h.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages / 4, Source: source})
	cli.OK(t, "umount", "--detach", h.Dir)
	h.KillServer()
	c.Right(t, client.Request{Count: small.Pages / 2, Source: source})
	cli.OK(t, "umount", "--abort", h.Dir)
	h.Ended(15 * time.Second)
	a := c.Must(t, client.Request{Op: "touch", First: small.Pages / 2, Count: small.Pages / 2, Source: source})
	if onlyRightOrLost(t, "after the abort", a) == 0 {
		t.Error("no page is lost")
	}
}

// TestServerDiesAtStart: when no server comes to serve, who waits gets an error within the bound, and a
// machine
// ends with memory-lost.
func TestServerDiesAtStart(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy", "--takeover-patience=2s")
	c := h.Client(t)
	c.Open(t, h.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages / 4, Source: source})
	file := filepath.Join(store, "thaw-store.json")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	h.KillServer()
	start := time.Now()
	a := c.Must(t, client.Request{Op: "touch", First: small.Pages - 1, Count: 1, Source: source})
	if lost := onlyRightOrLost(t, "the page that nobody brings", a); lost != 1 {
		t.Errorf("%d pages are lost", lost)
	}
	h.Ended(10 * time.Second)
	t.Logf("given up after %v", time.Since(start))
	if !strings.Contains(h.Log(), "no server has come to serve it") {
		t.Errorf("the log does not say why:\n%s", h.Log())
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	m := cli.MountAs(t, nil, store, h.Dir) // takes the dead mount away
	m.Unmount()
}

// TestUpgrades: one program after the other goes on, and no request is lost.
func TestUpgrades(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy")
	stop, done := reading(t, h, store, source, 2)
	for range fewer(10, 3) {
		pid := h.Pid()
		r := cli.JSON[struct {
			PID  int     `json:"pid"`
			Took float64 `json:"seconds"`
		}](t, "upgrade", h.Dir)
		t.Logf("upgraded in %.3f s", r.Took)
		if r.PID != pid {
			t.Errorf("the server is process %d, and was %d", r.PID, pid)
		}
	}
	h.KillServer() // and the holder goes on with it
	close(stop)
	done()
	cli.OK(t, "umount", h.Dir)
	h.Ended(10 * time.Second)
}

// TestUpgradeOfForeground: a server in the foreground that nobody holds is upgraded as well.
func TestUpgradeOfForeground(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: the next server gets /dev/fuse")
	}
	store, source := storeWith(t, tiny)
	m := cli.Mount(t, store, "--restore=lazy")
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: tiny.Pages / 2, Source: source})
	cli.OK(t, "upgrade", m.Dir)
	c.Right(t, client.Request{Count: tiny.Pages, Source: source})
	c.Close(t)
	m.Unmount()
}

// reading has clients read through mappings again and again until stop is closed; done waits for them.
func reading(t *testing.T, h *cli.Held, store, source string, clients int) (stop chan struct{}, done func()) {
	t.Helper()
	stop = make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	var longest time.Duration
	pages := uint64(0)
	for n := range clients {
		c := h.Client(t)
		rnd := rand.New(rand.NewPCG(uint64(n), rand.Uint64()))
		all.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				path := h.Path(fmt.Sprintf("vm/clones/c%d-%d/memory", n, round))
				how := client.Map{ReadWrite: true, Private: true, Random: true}
				for _, r := range []client.Request{
					{Op: "open", Path: path, Map: how},
					{Op: "touch", Count: small.Pages, Order: "random", Seed: rnd.Uint64(), Source: source, Times: true},
					{Op: "close"},
				} {
					a, err := c.Call(r)
					if err != nil || a.Error != "" || len(a.Wrong)+len(a.Lost) > 0 {
						t.Errorf("%s %s: %v %s, %d wrong, %d lost", r.Op, path, err, a.Error, len(a.Wrong), len(a.Lost))
						return
					}
					mu.Lock()
					pages += a.Pages
					if len(a.NS) > 0 {
						longest = max(longest, time.Duration(slices.Max(a.NS)))
					}
					mu.Unlock()
				}
			}
		})
	}
	return stop, func() {
		t.Helper()
		all.Wait()
		t.Logf("%d pages were read, the longest touch took %v", pages, longest)
	}
}

// TestServersKilledUnderGuests kills servers at any time, while guests that check their memory run from their
// mount, clients read, and checkpoints come and go. In the long run they are two machines of KVM and two of
// QEMU. No guest may fail, and no byte be wrong.
func TestServersKilledUnderGuests(t *testing.T) {
	race.SkipSlow(t)
	long := !testing.Short()
	machines, linuxes, length := 1, 0, 3*time.Second
	if long {
		machines, linuxes, length = 2, 2, 90*time.Second
	}
	if *killTime > 0 {
		length = *killTime
	}
	dir, _ := saveMachine(t, "random:1000", "--memory", "64MiB")
	store, source := storeWith(t, small)
	cli.OK(t, "import", store, dir, "--name", "kvm")
	var l *savedLinux
	if linuxes > 0 {
		l = linux(t)
		cli.OK(t, "import", store, l.first, "--name", "linux")
	}
	h := cli.MountHeld(t, store, "--restore=working-set", "--repack-after=1s")
	var guests []*machine
	for n := range machines {
		guests = append(guests, startMachine(t, "restore", h.Path("kvm", "clones", fmt.Sprint("k", n)), "--for",
			(length+2*time.Second).String()))
	}
	var lin []*restored
	for n := range linuxes {
		lin = append(lin, restoreLinux(t, l, &h.Mounted, "linux", fmt.Sprint("l", n)))
	}
	stop, done := reading(t, h, store, source, 2)
	changes := changing(t, store, stop)
	kills := 0
	for end := time.Now().Add(length); time.Now().Before(end); {
		// When in its life a server is killed is what is tried out.
		time.Sleep(time.Duration(200+rand.IntN(300)) * time.Millisecond)
		if h.KillServer() {
			kills++
		}
	}
	for _, g := range lin {
		g.allRight(t)
		g.goesOn(t, l.ticks, 3)
		noBadTicks(t, g.Console.Text())
	}
	for _, g := range guests {
		r := g.ended(2 * time.Minute)
		t.Logf("a machine of KVM: %s, %d units", r.End, r.Done)
	}
	close(stop)
	done()
	changes()
	t.Logf("%d servers were killed in %v", kills, length)
	if kills == 0 {
		t.Error("no server was killed")
	}
	for _, g := range lin {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	cli.OK(t, "umount", h.Dir)
	h.Ended(10 * time.Second)
	cli.OK(t, "check", store, "--read-data")
}

// changing has checkpoints come and go, and the store repacked, until stop is closed. A command may find that
// the server was killed while it asked it; what it changes stands.
func changing(t *testing.T, store string, stop chan struct{}) (done func()) {
	other := writeImage(t, image.Spec{Pages: 4096, Seed: 78})
	var all sync.WaitGroup
	all.Go(func() {
		for i := 0; ; i++ {
			name := fmt.Sprintf("come-and-go-%d", i%3)
			for _, args := range [][]string{{"import", store, other, "--name", name}, {"ls", store},
				{"repack", store}, {"rm", store, name}, {"gc", store}} {
				select {
				case <-stop:
					return
				default:
				}
				r := cli.Run(t, append(args, "--json")...)
				switch r.ErrorName() {
				case "", "server-gone", "exists", "not-found":
				default:
					t.Errorf("%v", r)
					return
				}
			}
		}
	})
	return all.Wait
}

// TestServiceKilled: systemd keeps the mount of a service whose server is killed, and the next server
// takes it
// from there. The test is systemd.
func TestServiceKilled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mount(2)")
	}
	cli.NeedFUSE(t)
	store, source := storeWith(t, small)
	s := newService(t, store)
	s.start()
	c := client.Start(t, s.abort)
	c.Open(t, filepath.Join(s.mnt, "vm/memory"), client.Map{Private: true, Random: true})
	half := small.Pages / 2
	c.Right(t, client.Request{Count: half, Source: source})
	for n := range uint64(4) {
		if n%2 == 0 {
			if err := s.server.Kill(10 * time.Second); err != nil {
				t.Fatal(err)
			}
		} else { // a restart: RestartKillSignal=SIGUSR2
			if err := s.server.Signal(syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			if err := s.server.Wait(10 * time.Second); err != nil {
				t.Fatalf("%v\n%s", err, s.messages())
			}
		}
		s.start()
		c.Right(t, client.Request{First: half + n*half/4, Count: half / 4, Source: source})
	}
	cli.Fails(t, "busy", "umount", s.mnt)
	c.Close(t)
	cli.OK(t, "umount", s.mnt)
	if err := s.server.Wait(10 * time.Second); err != nil {
		t.Errorf("%v\n%s", err, s.messages())
	}
	s.drain()
	if len(s.files) > 0 {
		t.Errorf("systemd still has %d files", len(s.files))
	}
}

// A service does what systemd does for one of Type=notify with a store of descriptors.
type service struct {
	t          *testing.T
	store, mnt string
	conn       *net.UnixConn
	socket     string
	server     *proc.Process
	log        *os.File
	files      map[string]*os.File
}

func newService(t *testing.T, store string) *service {
	t.Helper()
	dir, err := os.MkdirTemp("", "thaw-service")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, store: store, mnt: t.TempDir(), socket: filepath.Join(dir, "n")}
	s.files = map[string]*os.File{}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.socket, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.server != nil {
			_ = s.server.Kill(10 * time.Second)
		}
		for _, f := range s.files {
			f.Close()
		}
		s.conn.Close()
		s.log.Close()
		s.abort()
		os.RemoveAll(dir)
	})
	return s
}

func (s *service) abort() { cli.Run(s.t, "umount", "--abort", s.mnt) }

func (s *service) messages() string {
	text, _ := os.ReadFile(s.log.Name())
	return string(text)
}

// start starts the server with all files that it has left, and waits until it is ready.
func (s *service) start() {
	s.t.Helper()
	s.drain()
	// Its number is known only to itself.
	cmd := cli.Command()
	cmd.Args = []string{"sh", "-c", `export LISTEN_PID=$$; exec "$0" "$@"`, cli.Binary(), "mount",
		s.store, s.mnt, "--restore=lazy", "--verbose", "--takeover=auto"}
	cmd.Path = "/bin/sh"
	var names []string
	for name, f := range s.files {
		names = append(names, name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.socket, "FDSTORE=16",
		fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.Stdout, cmd.Stderr = s.log, s.log
	var err error
	if s.server, err = proc.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if time.Now().After(deadline) {
			s.t.Fatalf("the server is not ready\n%s", s.messages())
		}
		if s.heed(100 * time.Millisecond) {
			return
		}
		select {
		case <-s.server.Done():
			s.t.Fatalf("the server has ended: %v\n%s", s.server.Err(), s.messages())
		default:
		}
	}
}

// drain reads what a server has said before it ended.
func (s *service) drain() {
	for range 32 {
		s.heed(time.Millisecond)
	}
}

// heed reads one message, if there is one; true if the server says that it is ready.
func (s *service) heed(wait time.Duration) (ready bool) {
	b, oob := make([]byte, 4096), make([]byte, 256)
	_ = s.conn.SetReadDeadline(time.Now().Add(wait))
	n, oobn, _, _, err := s.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return false
	}
	text := string(b[:n])
	_, name, _ := strings.Cut(text, "FDNAME=")
	name, _, _ = strings.Cut(name, "\n")
	switch {
	case strings.HasPrefix(text, "FDSTORE=1"):
		list, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(list) != 1 {
			s.t.Fatalf("%q: %v", text, err)
		}
		fds, err := unix.ParseUnixRights(&list[0])
		if err != nil || len(fds) != 1 {
			s.t.Fatalf("%q: %v", text, err)
		}
		unix.CloseOnExec(fds[0])
		s.files[name] = os.NewFile(uintptr(fds[0]), name)
	case strings.HasPrefix(text, "FDSTOREREMOVE=1"):
		if f := s.files[name]; f != nil {
			f.Close()
			delete(s.files, name)
		}
	}
	return strings.Contains(text, "READY=1")
}
